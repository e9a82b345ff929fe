"""Gates: what each promises, gradients by hand and by differences, and how they are trained."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import gates, losses, masks, optimizers, runs, training
from jaxtickets.dynamic.static import masked
from jaxtickets.gates import GATES, bernoulli, concrete, edge_popup, gradual, hard_concrete
from jaxtickets.search import energies
from jaxtickets.types import Model, Split

KEY, OTHER = jax.random.key(1), jax.random.key(2)
STEP, NONE = jnp.int32(3), jnp.float32(1)
PRUNABLE = ("fc1/kernel", "out/kernel")  # of the net of `mlp`; fc2's kernel stays dense
KEEPS = {"each": {"fc1/kernel": 5, "out/kernel": 3}, "total": 7}
SCALES = {
    "unscaled": gates.unscaled,
    "rescale": partial(energies.rescale, prunable=PRUNABLE),
    "dynamic": partial(bernoulli.dynamic_rescale, prunable=PRUNABLE),
}
DRAWN = {"bernoulli", "concrete"}  # gates that depend on the key
SOFT = {"concrete"}  # weights that are multiplied by gates between 0 and 1, and not rescaled
RANKED = {  # what the hard mask goes by
    "edge_popup": np.abs,
    "gradual_edge_popup": np.abs,
    "bernoulli": np.positive,
    "concrete": np.positive,
}


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def fixed(weights, stats=()):
    """The statistics of a gate over these weights."""
    return gates.GatedStats(stats, weights, STEP, NONE)


def vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def spread_scores(params):
    """Scores of both signs, no two with the same absolute value, zero where nothing is pruned."""
    draw = np.random.default_rng(3)
    leaves = [draw.normal(size=leaf.shape).astype("f") for leaf in masks.pick(params, PRUNABLE)]
    return masks.put(jax.tree.map(np.zeros_like, params), PRUNABLE, leaves)


@cache
def table(scales=tuple(SCALES), batched=False):
    """All gates with the scales as one program: `(key, step, g, params) -> {(name, scale): ...}`.

    Each gives the effective weights, the penalty, and the gradient of a loss of them.
    """

    def one(name, scale, key, step, g, params):
        gate = GATES[name](PRUNABLE, KEEPS["total"], SCALES[scale], steps=1)

        def squares(g):
            effective, penalty = gate.apply(key, step, g, params, NONE)
            loss = sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(effective))
            return loss + penalty, (effective, penalty)

        gradient, result = jax.grad(squares, has_aux=True)(g)
        return *result, gradient

    def each(*at):
        return {(name, scale): one(name, scale, *at) for name in GATES for scale in scales}

    return jax.jit(jax.vmap(each) if batched else each)


# --- promises ------------------------------------------------------------------------------------


def test_the_table_is_whole():
    assert set(GATES) == set(RANKED)


@pytest.mark.parametrize("name", GATES)
def test_first_parameters_are_finite_and_the_same_for_the_same_key(name, mlp):
    init = jax.jit(GATES[name](PRUNABLE, KEEPS["total"], steps=1).init)
    g = init(KEY, mlp)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(g))
    assert np.isfinite(vector(g)).all()
    same(g, init(KEY, mlp))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", GATES)
def test_prunable_weights_are_kept_or_zero_and_the_rest_is_untouched(name, scale, mlp):
    before = jax.tree.map(np.copy, mlp)
    result = table()(KEY, STEP, spread_scores(mlp), mlp)[name, scale]
    effective, penalty, gradient = jax.tree.map(np.asarray, result)
    same(mlp, before)
    assert penalty.shape == () and np.isfinite(penalty)
    assert jax.tree.structure(gradient) == jax.tree.structure(mlp)
    for path, got, weight, slope in zip(
        masks.paths(mlp), *map(jax.tree.leaves, (effective, mlp, gradient)), strict=True
    ):
        assert got.dtype == weight.dtype and np.isfinite(slope).all()
        if path not in PRUNABLE:
            np.testing.assert_array_equal(got, weight)
            assert (slope == 0).all()
            continue
        assert (slope != 0).all()
        if name in SOFT:
            assert (got / weight > 0).all() and (got / weight < 1).all()
            continue
        kept = got != 0
        assert 0 < kept.sum() < kept.size
        factor = {"unscaled": 1, "rescale": (kept.size / kept.sum()) ** 0.5}
        by = factor.get(scale, kept.size / kept.sum())
        np.testing.assert_allclose(got, np.where(kept, weight * by, 0), rtol=1e-6)


@pytest.mark.parametrize("name", GATES)
def test_the_same_key_gives_the_same_weights_and_another_other_ones_to_some(name, mlp):
    first, again, other = (
        vector(table()(key, STEP, spread_scores(mlp), mlp)[name, "unscaled"][0])
        for key in (KEY, KEY, OTHER)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() == (name in DRAWN)


def test_vmapped_over_keys_parameters_and_weights_they_are_each_alone(mlp):
    rows = [
        (key, STEP, *jax.tree.map(lambda a, by=by: a * np.float32(by), (spread_scores(mlp), mlp)))
        for key, by in ((KEY, 1.0), (OTHER, -0.5))
    ]
    together = table(("unscaled",), batched=True)(*runs.stack(rows))
    for i, row in enumerate(rows):
        for name in GATES:
            effective, _, gradient = together[name, "unscaled"]
            alone, _, slope = table()(*row)[name, "unscaled"]
            same(jax.tree.map(lambda a, i=i: np.asarray(a)[i], effective), alone)
            np.testing.assert_allclose(
                vector(jax.tree.map(lambda a, i=i: np.asarray(a)[i], gradient)), vector(slope), 1e-6
            )


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", GATES)
def test_the_hard_mask_keeps_exactly_what_is_asked_for(name, keep, mlp):
    gate = GATES[name](PRUNABLE, KEEPS[keep], steps=1)
    scores = spread_scores(mlp)
    ties = jax.tree.map(np.zeros_like, scores)
    both = runs.stack([scores, ties])
    found = jax.jit(jax.vmap(lambda s: gate.harden(s, mlp)))(both)
    for mask in (jax.tree.map(lambda m, i=i: np.asarray(m[i]), found) for i in range(2)):
        assert jax.tree.map(np.shape, mask) == jax.tree.map(np.shape, mlp)
        assert all(leaf.dtype == bool for leaf in jax.tree.leaves(mask))
        leaves = zip(masks.paths(mask), jax.tree.leaves(mask), strict=True)
        kept = {path: leaf.sum() for path, leaf in leaves}
        pruned = {path: kept[path] for path in PRUNABLE}
        assert (pruned if keep == "each" else sum(pruned.values())) == KEEPS[keep]
        assert sum(kept.values()) == sum(pruned.values()) + 20 + 11


@pytest.mark.parametrize("name", GATES)
def test_what_is_left_is_ranked_highest_and_scaled(name, mlp):
    scores, gate = spread_scores(mlp), GATES[name](PRUNABLE, 7, SCALES["dynamic"], steps=1)
    left = masks.pick(jax.jit(partial(gates.hardened, gate))(scores, fixed(mlp)), PRUNABLE)
    ranks = [RANKED[name](leaf) for leaf in masks.pick(scores, PRUNABLE)]
    seventh = np.sort(np.concatenate([rank.ravel() for rank in ranks]))[-7]
    for got, rank, weight in zip(left, ranks, masks.pick(mlp, PRUNABLE), strict=True):
        kept = rank >= seventh
        factor = 1 if name in SOFT else kept.size / kept.sum()
        expected = np.where(kept, weight * factor, 0)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("name", GATES)
def test_a_leaf_keeps_its_floor(name, mlp):
    scores = jax.tree.map(np.abs, spread_scores(mlp))
    scores["out"]["kernel"] = scores["out"]["kernel"] / 1000  # ranked together, the last ten
    lost = GATES[name](PRUNABLE, 6, steps=1).harden(scores, mlp)
    kept = GATES[name](PRUNABLE, 6, floor=2, steps=1).harden(scores, mlp)
    assert masks.counts(lost, PRUNABLE) == {"fc1/kernel": 6, "out/kernel": 0}
    assert masks.counts(kept, PRUNABLE) == {"fc1/kernel": 4, "out/kernel": 2}


def test_how_many_are_kept_may_be_a_batch_axis(mlp):
    keeps, scores = jnp.arange(1, 22, 5), spread_scores(mlp)

    @jax.jit
    @jax.vmap
    def counts(keep):
        return {
            name: masks.count(GATES[name](PRUNABLE, keep, steps=1).harden(scores, mlp), PRUNABLE)
            for name in GATES
        }

    for kept in counts(keeps).values():
        np.testing.assert_array_equal(kept, keeps)


@pytest.mark.parametrize("name", GATES)
def test_what_cannot_be_kept_is_refused(name, mlp):
    with pytest.raises(ValueError, match="23 kept of all leaves"):
        GATES[name](PRUNABLE, 23, steps=1).harden(spread_scores(mlp), mlp)


# --- gradients -----------------------------------------------------------------------------------


def test_the_gradient_of_edge_popup_by_hand():
    # Two inputs, two outputs, two of four weights used: those with |s| = 2 and 1, one of them with
    # a negative score. y = x W = (30, 2), L = y_1 - y_2, so dL/dW = x^T (1, -1), and
    # dL/ds = sign(s) w dL/dW, for the unused weights too.
    params = {"out": {"kernel": jnp.array([[1.0, 2.0], [3.0, -4.0]])}}
    scores = {"out": {"kernel": jnp.array([[0.5, -2.0], [1.0, -0.1]])}}
    gate = edge_popup.gate(("out/kernel",), 2)

    def loss(scores):
        effective, _ = gate.apply(KEY, STEP, scores, params, NONE)
        y = jnp.array([1.0, 10.0]) @ effective["out"]["kernel"]
        return y[0] - y[1], (effective, y)

    gradient, (effective, y) = jax.grad(loss, has_aux=True)(scores)
    np.testing.assert_array_equal(effective["out"]["kernel"], [[0, 2], [3, 0]])
    np.testing.assert_array_equal(y, [30, 2])
    np.testing.assert_array_equal(gradient["out"]["kernel"], [[1, 2], [30, -40]])
    # |s| so moves against w dL/dW = (1, -2; 30, 40): it grows where the weight lowers the loss
    moved = jax.tree.map(lambda s, g: s - 0.001 * g, scores, gradient)["out"]["kernel"]
    np.testing.assert_allclose(jnp.abs(moved), [[0.499, 2.002], [0.97, 0.06]], rtol=1e-6)


def net(weights, images, labels):
    """A 3-4-2 net's loss in numpy, in whatever precision the weights have."""
    hidden = np.tanh(images @ weights[0])
    return np.sum((hidden @ weights[1] - labels) ** 2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", GATES)
def test_the_gradient_is_that_of_the_surrogate_by_differences(name, scale):
    # The surrogate is the loss as a function of the soft mask u, |s| or sigmoid(s), about the hard
    # mask m: of the weights w f (m + u(s) - u(s_0)). The factor f = size / kept, of DWR, moves with
    # the Bernoulli mask; edge-popup's count and the root of the search's rescaling stand still.
    # Where gates are soft there is no surrogate: their noise is what the gates of s_0 say it is.
    draw = np.random.default_rng(8)
    shapes, paths = [(3, 4), (4, 2)], ("a/kernel", "b/kernel")
    weights, first = ([draw.normal(size=shape) for shape in shapes] for _ in range(2))
    images, labels = draw.normal(size=(5, 3)), draw.normal(size=(5, 2))

    def tree(leaves):
        return {
            layer: {"kernel": jnp.asarray(x, "f")} for layer, x in zip("ab", leaves, strict=True)
        }

    scales = {
        "unscaled": gates.unscaled,
        "rescale": partial(energies.rescale, prunable=paths),
        "dynamic": partial(bernoulli.dynamic_rescale, prunable=paths),
    }
    gate = GATES[name](paths, {"a/kernel": 7, "b/kernel": 3}, scales[scale], steps=1)

    def loss(scores):
        effective, _ = gate.apply(KEY, STEP, scores, tree(weights), NONE)
        w1, w2 = (effective[layer]["kernel"] for layer in "ab")
        hidden = jnp.tanh(jnp.asarray(images, "f") @ w1)
        return jnp.sum((hidden @ w2 - labels) ** 2), effective

    (value, effective), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tree(first))
    used = [np.asarray(effective[layer]["kernel"], float) for layer in "ab"]
    hard = [u / w if name in SOFT else 1.0 * (u != 0) for u, w in zip(used, weights, strict=True)]
    assert all(0 < bits.sum() < bits.size for bits in hard)

    def soft(s):
        return 1 / (1 + np.exp(-s)) if name in DRAWN else np.abs(s)

    def factor(bits, still):
        if scale == "dynamic":
            return bits.size / (bits if name in DRAWN else still).sum()
        return np.sqrt(bits.size / still.sum()) if scale == "rescale" else 1.0

    def surrogate(scores):
        used = []
        for w, m, s, s0 in zip(weights, hard, scores, first, strict=True):
            if name in SOFT:
                noisy = np.log(m / (1 - m)) + (s - s0) / hard_concrete.BETA
                used.append(w / (1 + np.exp(-noisy)))
            else:
                bits = m + soft(s) - soft(s0)
                used.append(w * bits * factor(bits, m))
        return net(used, images, labels)

    np.testing.assert_allclose(value, surrogate(first), rtol=1e-5)
    for layer, slope in enumerate(gradient[part]["kernel"] for part in "ab"):
        for index in np.ndindex(shapes[layer]):
            step = [np.zeros(shape) for shape in shapes]
            step[layer][index] = 1e-5
            ahead, behind = (
                surrogate([s + by * d for s, d in zip(first, step, strict=True)]) for by in (1, -1)
            )
            expected = (ahead - behind) / 2e-5
            np.testing.assert_allclose(slope[index], expected, rtol=1e-3, atol=1e-4)


def test_straight_through_selects_and_lets_gradients_pass_both_ways():
    mask = {"a": jnp.array([True, False, False]), "b": jnp.array([False])}
    weights = {"a": jnp.array([2.0, jnp.nan, 5.0]), "b": jnp.array([7.0])}
    soft = jax.tree.map(jnp.zeros_like, weights)

    def total(soft, weights):
        through = gates.straight_through(mask, soft, weights, ("a",))
        return jnp.sum(through["a"] * jnp.array([1.0, 10.0, 100.0])) + through["b"][0], through

    by_soft, by_weights = jax.grad(total, (0, 1), has_aux=True)(soft, weights)[0]
    same(total(soft, weights)[1], {"a": jnp.array([2.0, 0, 0]), "b": weights["b"]})
    np.testing.assert_array_equal(by_soft["a"], [2, np.nan, 500])
    np.testing.assert_array_equal(by_weights["a"], [1, 0, 0])
    assert by_soft["b"] == 0 and by_weights["b"] == 1


# --- edge-popup ----------------------------------------------------------------------------------


def test_first_scores_are_uniform_within_the_root_of_the_fan_in():
    # a window of 3 x 3 over 4 channels: fan-in 36, scores from -1/6 to 1/6
    params = {"a": np.zeros((3, 3, 4, 30)), "b": np.zeros((3, 3, 4, 30)), "bias": np.zeros(30)}
    init = jax.jit(edge_popup.gate(("a", "b"), 5).init)
    a, b, bias = map(np.asarray, jax.tree.leaves(init(KEY, params)))
    assert -1 / 6 <= a.min() < -0.16 and 0.16 < a.max() <= 1 / 6
    assert abs(a.mean()) < 4 * (1 / 6) / np.sqrt(3 * a.size)
    assert (a != b).mean() > 0.99 and (bias == 0).all()


def test_what_is_trained_is_what_a_search_with_that_rescaling_scores(mlp):
    rescale = partial(energies.rescale, prunable=PRUNABLE)
    gate, scores = edge_popup.gate(PRUNABLE, 7, rescale), spread_scores(mlp)
    scored = energies.rescaled(gate.harden(scores, mlp), mlp, PRUNABLE)
    same(gate.apply(KEY, STEP, scores, mlp, NONE)[0], scored)
    same(gates.hardened(gate, scores, fixed(mlp)), scored)


def test_gradual_edge_popup_uses_fewer_and_fewer_weights(mlp):
    # of 12 and 10 weights, see `mlp`: from a half, and as many as are kept once 60 % are done
    gates_of = {
        "each": gradual.gate(PRUNABLE, {"fc1/kernel": 2, "out/kernel": 5}, steps=10),
        "total": gradual.gate(PRUNABLE, jnp.int32(3), steps=10),
        "low": gradual.gate(PRUNABLE, jnp.int32(3), steps=10, begin=0.01),
        "late": gradual.gate(PRUNABLE, jnp.int32(3), steps=10, begin=1.0, until=1.0),
    }

    @jax.jit
    @jax.vmap
    def used(step):
        found = {}
        for name, gate in gates_of.items():
            effective, _ = gate.apply(KEY, step, spread_scores(mlp), mlp, NONE)
            found[name] = [jnp.count_nonzero(leaf) for leaf in masks.pick(effective, PRUNABLE)]
        return found

    found = jax.tree.map(np.asarray, used(jnp.arange(12)))
    t = np.arange(1, 13) / 10
    left = (1 - np.minimum(t / 0.6, 1)) ** 3
    first, last = found["each"]
    np.testing.assert_array_equal(first, np.round(2 + 4 * left))
    assert first[0] == 4 and (first[6:] == 2).all()
    np.testing.assert_array_equal(last, 5)  # a half to begin with
    np.testing.assert_array_equal(sum(found["total"]), np.round(3 + 8 * left))
    np.testing.assert_array_equal(sum(found["low"]), 3)
    late = np.round(3 + 19 * (1 - np.minimum(t, 1)) ** 3)
    np.testing.assert_array_equal(sum(found["late"]), late)
    assert late[0] == 17 and late[8] == 3


FALLS = [{"begin": 0.0}, {"begin": 1.5}, {"until": 0.0}, {"until": 1.1}, {"steps": 0}]


@pytest.mark.parametrize("given", FALLS, ids=str)
def test_a_fall_out_of_range_is_refused(given):
    with pytest.raises(ValueError, match=next(iter(given)) + "=.*: must be"):
        gradual.gate(PRUNABLE, 3, **({"steps": 10} | given))


# --- Bernoulli -----------------------------------------------------------------------------------


def test_each_bit_is_there_as_often_as_its_sigmoid_says():
    scores = {"a": jnp.linspace(-3, 3, 20).reshape(4, 5), "b": jnp.full((2, 3), 0.5)}
    draws = 4000
    sampled = jax.jit(jax.vmap(lambda key: bernoulli.sample(key, scores, ("a",))))(
        jax.random.split(KEY, draws)
    )
    chance = 1 / (1 + np.exp(-np.linspace(-3, 3, 20).reshape(4, 5)))
    sigma = np.sqrt(chance * (1 - chance) / draws)
    assert (np.abs(sampled["a"].mean(0) - chance) < 4 * sigma).all()
    pairs = np.corrcoef(sampled["a"].reshape(draws, 20).T) - np.eye(20)
    assert np.abs(pairs).max() < 4.5 / np.sqrt(draws)  # 190 pairs, independent
    assert sampled["b"].all()


def test_leaves_of_the_same_shape_are_drawn_independently():
    scores = {"a": jnp.zeros((6, 6)), "b": jnp.zeros((6, 6))}
    mask = bernoulli.sample(KEY, scores, ("a", "b"))
    assert 0 < np.sum(mask["a"] != mask["b"]) < 36


def test_training_uses_the_drawn_mask(mlp):
    gate, scores = bernoulli.gate(PRUNABLE, 7), spread_scores(mlp)
    mask = bernoulli.sample(KEY, scores, PRUNABLE)
    same(gate.apply(KEY, STEP, scores, mlp, NONE)[0], masks.apply(mask, mlp))


def test_the_threshold_is_a_half_and_has_no_density(mlp):
    scores = {"a": jnp.array([[0.1, 0.0], [-0.2, 5.0]]), "b": jnp.array([-1.0])}
    mask = bernoulli.gate(("a",), None).harden(scores, scores)
    same(mask, {"a": jnp.array([[True, False], [False, True]]), "b": jnp.array([True])})
    same(mask, bernoulli.threshold(scores, ("a",)))


def test_first_scores_are_what_is_asked_for(mlp):
    scores = bernoulli.gate(PRUNABLE, None, start=-1.5).init(KEY, mlp)
    expected = jax.tree.map(jnp.zeros_like, mlp)
    expected = masks.put(expected, PRUNABLE, [jnp.full((3, 4), -1.5), jnp.full((5, 2), -1.5)])
    same(scores, expected)


def test_dynamic_rescaling_multiplies_by_size_over_kept():
    # 3 of 12 kept: 4 times; 2 of 4: twice; none of 4: finite, whatever it is; not prunable: as is
    bits = [np.arange(12).reshape(3, 4) % 4 == 1, np.eye(2, dtype=bool), np.zeros((2, 2), bool)]
    mask = dict(zip("abc", map(jnp.asarray, bits), strict=True)) | {"d": jnp.array([[True, False]])}
    params = jax.tree.map(lambda m: jnp.arange(1.0, m.size + 1).reshape(m.shape), mask)
    got = bernoulli.dynamic_rescale(mask, params, ("a", "b", "c"))
    for leaf, factor in {"a": 4, "b": 2, "d": 1}.items():
        np.testing.assert_allclose(got[leaf], factor * params[leaf], rtol=1e-6)
    assert jnp.isfinite(got["c"]).all()


# --- concrete ------------------------------------------------------------------------------------


def test_first_logits_are_those_of_the_density(mlp):
    # 12 and 10 weights: 5 and 3 kept, or 7 of 22; all of a leaf is all but half a weight
    each = concrete.gate(PRUNABLE, KEEPS["each"], steps=1).init(KEY, mlp)
    np.testing.assert_allclose(each["fc1"]["kernel"], np.log(5 / 7), rtol=1e-5)
    np.testing.assert_allclose(each["out"]["kernel"], np.log(3 / 7), rtol=1e-5)
    assert (each["fc2"]["kernel"] == 0).all()
    total = concrete.gate(PRUNABLE, 7, steps=1).init(KEY, mlp)
    np.testing.assert_allclose(total["out"]["kernel"], np.log(7 / 15), rtol=1e-5)
    ends = concrete.gate(PRUNABLE, {"fc1/kernel": 12, "out/kernel": 0}, steps=1).init(KEY, mlp)
    np.testing.assert_allclose(ends["fc1"]["kernel"], np.log(11.5 / 0.5), rtol=1e-5)
    np.testing.assert_allclose(ends["out"]["kernel"], np.log(0.5 / 9.5), rtol=1e-5)
    with pytest.raises(ValueError, match="steps=0: must be the number of training steps"):
        concrete.gate(PRUNABLE, 7)


def test_open_concrete_gates_are_the_plain_net_bit_for_bit(mlp):
    sure = jax.tree.map(lambda w: jnp.full_like(w, 1000.0), mlp)
    effective, penalty = concrete.gate(PRUNABLE, 7, steps=1).apply(KEY, STEP, sure, mlp, NONE)
    same(jax.tree.map(np.asarray, effective), mlp)
    assert penalty == 0


def test_the_reverse_divergence_by_hand():
    # p = (1/2, 1/2) from q = (1/4, 3/4): log(2) / 2 + log(2/3) / 2; the other example is the same
    logits, dense = jnp.array([[0.0, 0], [1, 2]]), jnp.array([[0, np.log(3)], [1, 2]])
    by_hand = (np.log(2) + np.log(2 / 3)) / 2 / 2
    np.testing.assert_allclose(concrete.reverse_divergence(logits, dense), by_hand, rtol=1e-5)


def test_the_gradient_of_the_density_is_balanced_by_hand():
    # Logits 0 and log 3 of a total of 2: chances 1/2 and 3/4, slopes 1/4 / 2 and 3/16 / 2, whose
    # norm is 5/32. A gradient (3, 4) is 32 times as long; a hundredth of that goes to the
    # multiplier while the sum of chances, 5/4, is above what is kept.
    logits, task = {"a": jnp.array([0, np.log(3)], "f")}, {"a": jnp.array([3.0, 4.0])}
    slope = np.array([1 / 8, 3 / 32])
    for keep, multiplier in ((1, 0.32), ({"a": 2}, 0.0)):
        optimizer = concrete.balanced(optimizers.optimizer("sgd", 1.0), ("a",), keep)
        state = optimizer.init(logits)
        for _ in range(2):
            updates, state = optimizer.update(task, state, logits)
            expected = -(np.array([3, 4]) + multiplier * slope)
            np.testing.assert_allclose(updates["a"], expected, rtol=1e-5)
            np.testing.assert_allclose(state.multiplier, multiplier, rtol=1e-5)
            multiplier *= 1.99  # 0.99 times it, and as much again
    # it falls by a hundredth below the target, and where no gate has a slope
    for keep, at in ((2, logits), (1, {"a": jnp.full(2, 200.0)})):
        optimizer = concrete.balanced(optimizers.optimizer("sgd", 1.0), ("a",), keep)
        state = optimizer.init(at)._replace(multiplier=jnp.float32(2))
        assert optimizer.update(task, state, at)[1].multiplier == pytest.approx(1.98)


# --- training ------------------------------------------------------------------------------------


def counting():
    """A gate whose weights are `g · w · step`, with a penalty from its key; a net to go with it."""

    def apply(key, step, g, params, strength):
        effective = jax.tree.map(lambda w: g * w * step * strength, params)
        return effective, jax.random.uniform(key)

    def net(params, stats, images, key=None, train=False):
        if not train:
            return images * params["w"][None], stats
        return images * params["w"][None] + jax.random.normal(key), {"mean": stats["mean"] + 10}

    def harden(g, params):
        return {"w": g > jnp.zeros_like(params["w"])}

    gate = gates.Gate(lambda key, params: jnp.float32(2), apply, harden)
    return gate, Model(lambda key: ({"w": jnp.zeros(3)}, {"mean": jnp.float32(0)}), net)


def test_keys_steps_and_statistics_reach_the_gate_and_the_net():
    gate, model = counting()
    weights, images = {"w": jnp.array([1.0, -1.0, 3.0])}, jnp.array([[1.0, 2.0, 5.0]])
    gate_key, net_key = jax.random.split(KEY)
    noise, penalty = jax.random.normal(net_key), jax.random.uniform(gate_key)
    batch, stats = (
        Split(images, jnp.array([1])),
        gates.GatedStats({"mean": jnp.float32(5)}, weights, jnp.int32(4), NONE),
    )
    logits = images * 2.0 * weights["w"][None] * 4 + noise  # g = 2, step = 4

    of_weights = losses.classification(model, lambda images: images)
    value, (after, metrics) = gates.loss(gate, of_weights)(jnp.float32(2), stats, batch, KEY)
    np.testing.assert_allclose(value, losses.cross_entropy(logits, batch.labels) + penalty, 1e-6)
    assert (after.net["mean"], after.step) == (15, 5) and after.step.dtype == jnp.int32
    assert metrics["loss"] == value and metrics["penalty"] == penalty
    assert metrics["accuracy"] == losses.accuracy(logits, batch.labels)

    gated = gates.model(gate, model)
    g, begun = gated.init(KEY)
    assert (g, begun.net["mean"], begun.step) == (2, 0, 0)
    got, after = gated.apply(g, stats, images, KEY, True)
    np.testing.assert_allclose(got, logits, rtol=1e-6)
    assert (after.net["mean"], after.step) == (15, 5)
    got, after = gated.apply(jnp.float32(-2), stats, images)  # nothing is kept
    np.testing.assert_array_equal(got, [[0, 0, 0]])
    assert after is stats


def apply(params, stats, images, key=None, train=False):
    """A 2-12-2 net with a bias; statistics that say how often it was trained."""
    hidden = jax.nn.relu(images @ params["fc"]["kernel"] + params["fc"]["bias"][None])
    return hidden @ params["out"]["kernel"], {"seen": stats["seen"] + 1} if train else stats


LEAVES = ("fc/kernel", "out/kernel")
MODEL = Model(lambda key: None, apply)
KEEP = {"fc/kernel": 9, "out/kernel": 9}


def weights_of(number):
    draw = np.random.default_rng(number)
    shapes = {"fc": {"kernel": (2, 12), "bias": (12,)}, "out": {"kernel": (12, 2)}}
    leaf = partial(jax.tree.map, is_leaf=lambda x: isinstance(x, tuple))
    return leaf(lambda shape: draw.normal(size=shape).astype("f"), shapes)


def points(n, number):
    """Two classes on either side of a line through the middle; uint8 pixels."""
    x = np.random.default_rng(number).integers(0, 256, (n, 2))
    return Split(jnp.asarray(x, jnp.uint8), jnp.asarray(x[:, 0] > x[:, 1], jnp.int32))


def prepare(images):
    return images.astype(jnp.float32) / 128 - 1


LOSS = losses.classification(MODEL, prepare)
RATES = {"edge_popup": 0.05, "gradual_edge_popup": 0.05, "bernoulli": 2.0, "concrete": 2.0}
FALLEN = {"gradual_edge_popup": 60}
"""Steps of 100 until as few weights are used as are kept."""
DATA = training.Splits(points(40, 1), points(30, 2))
BATCHES = Split(*(np.tile(np.asarray(a), (50, *[1] * (a.ndim - 1))) for a in DATA.train))


def sgd(rate):
    return optimizers.optimizer("momentum", rate, weight_decay=1e-4)


def trained(name, row, batches):
    """A gate trained on a row's weights, 100 steps of 20 points."""
    key, weights = row
    gate = GATES[name](LEAVES, KEEP, steps=100)
    g, begun = gates.start(gate, key, weights, {"seen": jnp.int32(0)})
    optimizer = masked(gates.optimizer(gate, sgd(RATES[name])), masks.ones(g))
    state = training.init(g, begun, optimizer)
    batches = jax.tree.map(lambda a: a.reshape(100, 20, *a.shape[1:]), batches)
    loss = gates.loss(gate, LOSS, losses.outputs(losses.CLASSIFICATION, MODEL, prepare))

    def watched(trained, stats, batch, key):
        """The loss, which also says which weights there were."""
        value, (after, metrics) = loss(trained, stats, batch, key)
        g, frozen = gates.parts(gate, trained, stats)
        gate_key, _ = jax.random.split(key)
        used, _ = gate.apply(gate_key, stats.step, g, frozen, stats.strength)
        return value, (after, metrics | {"weights": used})

    state, metrics = training.advance(watched, optimizer, key, state, batches)
    return g, state, metrics, gates.hardened(gate, state.params, state.stats)


@pytest.mark.parametrize("name", GATES)
def test_training_a_gate_lowers_the_loss_and_leaves_the_weights(name):
    weights = jax.tree.map(lambda *two: np.stack(two), weights_of(1), weights_of(2))
    axis = runs.axis("vmap", 2, jax.devices()[:1])
    rows = jax.random.split(KEY, 2), weights
    done = runs.over_runs(partial(trained, name), axis, rows, BATCHES)
    g, state, metrics, hardened = jax.tree.map(np.asarray, done)
    loss, used = metrics["loss"], metrics["weights"]
    assert (loss[:, -10:].mean(1) < 0.7 * loss[:, :4].mean(1)).all()
    assert (state.step == 100).all() and (state.stats.step == 100).all()
    assert (state.stats.net["seen"] == 100).all()
    assert (state.params["fc"]["bias"] == 0).all()
    same(hardened["fc"]["bias"], weights["fc"]["bias"])
    for layer, path in zip(("fc", "out"), LEAVES, strict=True):
        frozen, left = weights[layer]["kernel"], hardened[layer]["kernel"]
        assert (state.params[layer]["kernel"] != g[layer]["kernel"]).any((1, 2)).all()
        assert ((left != 0).sum((1, 2)) == KEEP[path]).all()
        same(left, np.where(left != 0, frozen, np.float32(0)))
        at_steps = used[layer]["kernel"]  # [run, step, ...]
        if name in SOFT:
            gate = at_steps / frozen[:, None]
            assert (gate >= 0).all() and (gate <= 1).all() and (gate[:, 0] != gate[:, -1]).any()
            continue
        there = at_steps != 0
        same(at_steps, np.where(there, frozen[:, None], np.float32(0)))
        assert (there[:, 0] != there[:, -1]).any()
        exactly = there.sum((2, 3)) == KEEP[path]
        assert not exactly.all() if name in DRAWN else exactly[:, FALLEN.get(name, 0) :].all()


def test_a_recipe_trains_a_gate_and_looks_at_it_hardened():
    weights, gate = weights_of(2), edge_popup.gate(LEAVES, 30)
    of_weights = training.Recipe(MODEL, LOSS, sgd, prepare, None, batch_size=20, every=30)
    gated = gates.recipe(gate, of_weights)

    @jax.jit
    def run(key):
        g, begun = gates.start(gate, key, weights, {"seen": jnp.int32(0)})
        start = g, begun, masks.ones(g)
        watched, metrics = training.train(gated, key, jnp.float32(0.05), *start, DATA, 90)
        end = watched.state
        return end, metrics, gates.hardened(gate, end.params, end.stats)

    state, metrics, hardened = run(KEY)
    assert (state.step, state.stats.step, state.stats.net["seen"]) == (90, 90, 90)
    kernels = [np.asarray(leaf) for leaf in masks.pick(hardened, LEAVES)]
    assert sum((kernel != 0).sum() for kernel in kernels) == 30  # over both leaves
    x = np.asarray(prepare(DATA.validation.images))
    logits = np.maximum(x @ kernels[0] + weights["fc"]["bias"], 0) @ kernels[1]
    right = (logits.argmax(1) == np.asarray(DATA.validation.labels)).mean()
    np.testing.assert_allclose(metrics["accuracy"][-1], right, rtol=1e-6)
    assert right > 0.8


def test_a_loss_of_concrete_gates_needs_the_outputs():
    with pytest.raises(ValueError, match=r"their loss needs its `outputs`$"):
        gates.loss(concrete.gate(LEAVES, KEEP, steps=1), LOSS)


def test_concrete_gates_imitate_the_dense_net_at_the_density_that_is_asked_for():
    weights, steps = weights_of(2), 300
    gate = concrete.gate(LEAVES, KEEP, steps=steps)
    of_weights = training.Recipe(MODEL, LOSS, sgd, prepare, None, batch_size=20, every=20)
    gated = gates.recipe(gate, of_weights)

    @jax.jit
    def run(key):
        g, begun = gates.start(gate, key, weights, {"seen": jnp.int32(0)})
        start = g, begun, masks.ones(g)
        watched, metrics = training.train(gated, key, jnp.float32(0), *start, DATA, steps)
        return watched.state, metrics

    state, metrics = run(KEY)
    loss = np.asarray(metrics["train_loss"]).ravel()
    assert loss[-40:].mean() < 0.3 * loss[:20].mean()
    kept = sum(jax.nn.sigmoid(s).sum() for s in masks.pick(state.params, LEAVES))
    assert 12 < kept < 20  # 18 of 48; without the multiplier more gates are open

    def outputs(params):
        return np.asarray(apply(params, {"seen": 0}, prepare(DATA.validation.images))[0])

    def gap(mask):
        return float(concrete.reverse_divergence(outputs(masks.apply(mask, weights)), dense))

    dense = outputs(weights)
    random = [gap(masks.random(key, weights, LEAVES, KEEP)) for key in jax.random.split(KEY, 5)]
    assert gap(gate.harden(state.params, weights)) < 0.5 * min(random)
    assert state.stats.net["seen"] == steps and state.stats.step == steps
