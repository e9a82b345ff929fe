"""Gates that train with the weights: what each promises, and what each does by hand.

A gate has a row in `ROWS`. The promises are tested for all rows, in few programs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import gates, losses, masks, optimizers, runs, training
from jaxtickets.gates import (
    JOINT_GATES,
    groups,
    hard_concrete,
    l0,
    l0_groups,
    normal_jeffreys,
    soft_weight_sharing,
    targeted_dropout,
    variational_dropout,
)
from jaxtickets.gates.soft_weight_sharing import Components, Mixture
from jaxtickets.types import Model, Split

KEY, OTHER = jax.random.split(jax.random.key(1))
PRUNABLE = ("fc1/kernel", "out/kernel")  # of the net of `mlp`; fc2's kernel stays dense
KEEPS = {"each": {"fc1/kernel": 5, "out/kernel": 3}, "total": 7}
SETTING = gates.Setting(steps=40, examples=100)
STRENGTHS = (0.0, 0.01)


class Row(NamedTuple):
    """What the promises need to know about a gate.

    Attributes:
      certain: `certain(g, params) -> g`: parameters whose gate is fully open and without noise; the
        net is then the plain net, bit for bit.
      random: whether the effective weights depend on the key.
      by_units: whether the hard mask keeps whole groups of weights, so that counts are of groups.
    """

    certain: Callable[[Any, Any], Any]
    random: bool = False
    by_units: bool = False


def of_leaves(value):
    """`certain` for a gate whose g is like the parameters: all scores are `value`."""
    return lambda g, params: jax.tree.map(lambda leaf: jnp.full_like(leaf, value), g)


def a_component_each(g, params):
    """`certain` for soft weight sharing: a narrow component at each weight, besides one at 0."""
    del g
    means = masks.flatten(params, PRUNABLE)
    return Mixture(means, jnp.full(len(means) + 1, 20.0), jnp.zeros(len(means)))


def fixed(g, params):
    """`certain` for a mean-field gate: no weight is random."""
    return g._replace(rho=jax.tree.map(lambda leaf: jnp.full_like(leaf, -1000.0), g.rho))


def silent_and_whole(g, params):
    """`certain` for scales: all are 1, without variance, as are the weights."""
    del params
    silent = jax.tree.map(lambda leaf: jnp.full_like(leaf, -1000.0), g)
    return silent._replace(mean=jax.tree.map(jnp.ones_like, g.mean))


ROWS = {
    "continuous_sparsification": Row(of_leaves(1000.0)),
    "soft_weight_sharing": Row(a_component_each),
    "targeted_dropout": Row(lambda g, params: g, random=True),
    "targeted_unit_dropout": Row(lambda g, params: g, random=True),
    "bayes_by_backprop": Row(fixed, random=True),
    "moped": Row(fixed, random=True),
    "l0": Row(of_leaves(1000.0), random=True),
    "l0_groups": Row(of_leaves(1000.0), random=True, by_units=True),
    "variational_dropout": Row(of_leaves(-1000.0)),
    "normal_jeffreys": Row(silent_and_whole, random=True, by_units=True),
}


def made(name, keep=KEEPS["total"], floor=0):
    return JOINT_GATES[name](PRUNABLE, keep, floor, SETTING)


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def apply(params, stats, images, key=None, train=False):
    """The net of `mlp`, with statistics that say how often it was trained."""
    x = images
    for layer in ("fc1", "fc2"):
        x = jnp.tanh(x @ params[layer]["kernel"] + params[layer]["bias"][None])
    logits = x @ params["out"]["kernel"] + params["out"]["bias"][None]
    return logits, {"seen": stats["seen"] + 1} if train else stats


def prepare(images):
    return images.astype(jnp.float32) / 64 - 2


MODEL = Model(lambda key: None, apply)
LOSS = losses.classification(MODEL, prepare)


def points(n, number):
    """Two classes on either side of a plane; uint8 pixels."""
    x = np.random.default_rng(number).integers(0, 256, (n, 3))
    return Split(jnp.asarray(x, jnp.uint8), jnp.asarray(x[:, 0] > x[:, 1], jnp.int32))


RECIPE = training.Recipe(
    MODEL, LOSS, lambda rate: optimizers.optimizer("adam", rate), prepare, None, 20, every=20
)
RATE = 0.02
BATCHES = jax.tree.map(lambda a: a.reshape(SETTING.steps, 20, *a.shape[1:]), points(800, 1))


def begin(gate, strength, params):
    return gates.start(gate, KEY, params, {"seen": jnp.int32(0)}, strength=strength)


def by_recipe(gate, strength, params):
    """What trained, its statistics and the losses, by the library's own training."""
    recipe = gates.recipe(gate, RECIPE, lambda rate: optax.adam(2 * rate))
    trained, stats = begin(gate, strength, params)
    sparse = recipe.sparsify(recipe.optimizer(RATE), masks.ones(trained), None, RATE)
    state = training.init(trained, stats, sparse)
    state, metrics = training.train_steps(recipe, OTHER, RATE, state, BATCHES, None)
    return state.params, state.stats, metrics["loss"]


def by_hand(gate, strength, params):
    """The same in a plain loop of optax."""
    optimizer = gates.optimizer(gate, optax.adam(RATE), optax.adam(2 * RATE))
    loss = jax.value_and_grad(gates.loss(gate, LOSS), has_aux=True)
    step_key = jax.random.split(OTHER, 3)[1]

    def step(carry, batch):
        trained, stats, state = carry
        key = jax.random.split(jax.random.fold_in(step_key, stats.step))[1]
        (value, (stats, _)), gradient = loss(trained, stats, batch, key)
        updates, state = optimizer.update(gradient, state, trained)
        return (optax.apply_updates(trained, updates), stats, state), value

    trained, stats = begin(gate, strength, params)
    (trained, stats, _), losses = jax.lax.scan(
        step, (trained, stats, optimizer.init(trained)), BATCHES
    )
    return trained, stats, losses


def test_the_table_is_whole():
    assert set(JOINT_GATES) == set(ROWS)


@pytest.mark.parametrize("name", JOINT_GATES)
def test_first_parameters_are_finite_and_the_same_for_the_same_key(name, mlp):
    gate = made(name)
    assert gate.trains_weights
    g = gate.init(KEY, mlp)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(g))
    same(g, gate.init(KEY, mlp))


@pytest.mark.parametrize("name", JOINT_GATES)
def test_a_gate_that_is_open_and_certain_is_the_plain_net_bit_for_bit(name, mlp):
    gate = made(name)
    g = ROWS[name].certain(gate.init(KEY, mlp), mlp)
    for step in (0, SETTING.steps):
        effective, penalty = gate.apply(KEY, jnp.int32(step), g, mlp, jnp.float32(0))
        mean = effective.mean if hasattr(effective, "variance") else effective
        same(jax.tree.map(np.asarray, mean), mlp)
        assert np.isfinite(penalty)
    same(jax.tree.map(np.asarray, gate.weights(g, mlp)), mlp)


@pytest.mark.parametrize("name", JOINT_GATES)
def test_the_penalty_grows_with_the_strength_and_is_finite(name, mlp):
    gate = made(name)
    g = gate.init(KEY, mlp)
    values = [float(gate.apply(KEY, jnp.int32(40), g, mlp, jnp.float32(s))[1]) for s in (0, 1, 2)]
    assert np.isfinite(values).all() and values == sorted(values)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", JOINT_GATES)
def test_the_hard_mask_keeps_exactly_what_is_asked_for(name, keep, mlp):
    gate = made(name, KEEPS[keep])
    mask = gate.harden(gate.init(KEY, mlp), mlp)
    masks.check_mask(mask, mlp)
    counts = masks.counts(mask, PRUNABLE)
    if not ROWS[name].by_units:
        assert (counts if keep == "each" else sum(counts.values())) == KEEPS[keep]
    assert masks.count(mask, ("fc2/kernel",)) == 20
    own = made(name, None).harden(gate.init(KEY, mlp), mlp)
    masks.check_mask(own, mlp)


@pytest.mark.parametrize("name", JOINT_GATES)
def test_strengths_train_side_by_side_as_each_alone_in_a_plain_optax_loop(name, mlp):
    gate = made(name)
    together = jax.jit(jax.vmap(partial(by_recipe, gate), (0, None)))(jnp.array(STRENGTHS), mlp)
    alone = jax.jit(partial(by_hand, gate))
    for i, strength in enumerate(STRENGTHS):
        trained, stats, loss = runs.take(together, i)
        chex.assert_trees_all_close(
            (trained, stats, loss), alone(strength, mlp), rtol=1e-3, atol=1e-4
        )
        assert np.isfinite(loss).all() and stats.step == stats.net["seen"] == SETTING.steps
        assert (trained.weights["fc1"]["kernel"] != mlp["fc1"]["kernel"]).any()
        mask, weights = gates.ticket(gate, trained, stats)
        masks.check_mask(mask, weights)
        if strength == 0:
            assert loss[-5:].mean() < loss[:5].mean()


def test_a_net_is_given_gaussian_weights_as_it_is(mlp):
    gate, twice = made("variational_dropout"), jnp.ones((2, 3))
    trained, stats = begin(gate, 1.0, mlp)
    noisy = trained._replace(gate=jax.tree.map(jnp.zeros_like, trained.gate))  # variances of 1
    net = jax.jit(gates.model(gate, MODEL).apply, static_argnums=4)
    outputs, after = net(noisy, stats, twice, KEY, True)
    assert (outputs[0] != outputs[1]).all() and after.net["seen"] == 1


def test_strengths_out_of_range_are_refused_where_they_can_be_seen(mlp):
    for name in JOINT_GATES:
        with pytest.raises(ValueError, match=r"^strength=-1: must be 0 or more|from 0 to 1$"):
            begin(made(name), -1, mlp)
    for name in ("targeted_dropout", "targeted_unit_dropout"):
        with pytest.raises(ValueError, match=r"^strength=1.5: must be from 0 to 1$"):
            begin(made(name), jnp.float32(1.5), mlp)
        jax.eval_shape(lambda strength, name=name: begin(made(name), strength, mlp), 1.5)


@pytest.mark.parametrize("name", ["l0_groups", "normal_jeffreys"])
def test_a_leaf_without_groups_is_refused(name, mlp):
    gate = JOINT_GATES[name](("fc1/kernel", "fc2/bias"), None, 0, SETTING)
    with pytest.raises(ValueError, match=r"^fc2/bias has no groups: its shape is \(5,\), and "):
        begin(gate, 1.0, mlp)


def test_the_same_key_gives_the_same_weights_and_another_other_ones_to_some(mlp):
    for name, row in ROWS.items():
        gate = made(name)
        g = gate.init(KEY, mlp)
        first, again, other = (
            jax.tree.leaves(gate.apply(key, jnp.int32(10), g, mlp, jnp.float32(1))[0])
            for key in (KEY, KEY, OTHER)  # in the ramp: targeted dropout ends with nothing random
        )
        same(first, again)
        assert any((x != y).any() for x, y in zip(first, other, strict=True)) == row.random, name


# --- continuous sparsification -------------------------------------------------------------------


def test_continuous_sparsification_by_hand(mlp):
    gate = made("continuous_sparsification", None)
    g = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), mlp)
    effective, penalty = gate.apply(KEY, jnp.int32(20), g, mlp, jnp.float32(0.1))
    soft = 1 / (1 + np.exp(-(200**0.5) * 0.5))
    np.testing.assert_allclose(effective["out"]["kernel"], mlp["out"]["kernel"] * soft, rtol=1e-5)
    np.testing.assert_array_equal(effective["fc2"]["kernel"], mlp["fc2"]["kernel"])
    np.testing.assert_allclose(penalty, 0.1 * 22 * soft, rtol=1e-5)
    kept = gate.harden(jax.tree.map(lambda s, w: s * np.sign(w), g, mlp), mlp)
    np.testing.assert_array_equal(kept["fc1"]["kernel"], mlp["fc1"]["kernel"] > 0)


# --- targeted dropout ----------------------------------------------------------------------------

COLUMNS = {
    "fc": {"kernel": np.array([[1, 8, 3], [-2, 7, -3], [3, 6, 3], [-4, 5, 3]], "f")},
    "out": {"kernel": np.array([[2, -1], [1, 1]], "f")},
}
BOTH = ("fc/kernel", "out/kernel")


def targeted(name="gate", keep=None, steps=8, **options):
    setting = gates.Setting(steps, 1)
    return getattr(targeted_dropout, name)(BOTH, keep, 0, setting, **options)


def mask_at(gate, gamma):
    start = gates.start(gate, KEY, COLUMNS, {}, strength=gamma)
    mask, weights = jax.jit(lambda start: gates.ticket(gate, *start))(start)
    same(jax.tree.map(np.asarray, weights), COLUMNS)
    return jax.tree.map(lambda bits: np.asarray(bits).astype(int).tolist(), mask)


def test_targeted_dropouts_own_mask_removes_the_smallest_share_of_each_column():
    # of 4 in a column 0.6 · 4 = 2.4 go, two of them; of 2, one. Of equal magnitudes, the last go.
    mask = mask_at(targeted(), 0.6)
    assert mask["fc"]["kernel"] == [[0, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert mask["out"]["kernel"] == [[1, 1], [0, 0]]
    # the columns of fc have squared norms 30, 174 and 36: of three, floor(1.8) goes; of two, one
    mask = mask_at(targeted("unit_gate"), 0.6)
    assert mask["fc"]["kernel"] == [[0, 1, 1]] * 4 and mask["out"]["kernel"] == [[1, 0]] * 2
    assert np.sum(mask_at(targeted(), 0.0)["fc"]["kernel"]) == 12
    assert np.sum(mask_at(targeted("unit_gate"), 1.0)["fc"]["kernel"]) == 0


def test_a_whole_number_of_targeted_weights_is_not_lost_to_rounding():
    kernel = np.random.default_rng(0).standard_normal((100, 1)).astype("f")
    for percent in range(101):
        gate = targeted_dropout.gate(("w",), None, 0, SETTING)
        mask = gate.prune({"w": kernel > -9}, {"w": kernel}, jnp.float32(percent) / 100)
        assert np.sum(mask["w"]) == 100 - percent


def test_an_exact_count_keeps_the_same_share_of_each_column():
    mask = mask_at(targeted(keep=8), 0.9)  # of 16, whatever the strength
    assert np.sum(mask["fc"]["kernel"], 0).tolist() == [2, 2, 2]
    assert np.sum(mask["out"]["kernel"], 0).tolist() == [1, 1]
    # fc's columns rank 1/3, 3/3 and 2/3, out's 2/2 and 1/2: all of the first ones, 2 of 36's
    mask = mask_at(targeted("unit_gate", keep=8), 0.9)
    assert mask["fc"]["kernel"] == [[0, 1, 1], [0, 1, 1], [0, 1, 0], [0, 1, 0]]
    assert mask["out"]["kernel"] == [[1, 0]] * 2


def test_both_ramps_by_hand():
    found = [targeted_dropout.ramped(jnp.int32(t), 8, 0.5, 0.4) for t in (0, 2, 4, 6, 8, 99)]
    shares = [0, 0.475 / 2, 0.475, 0.4875, 0.5, 0.5]
    np.testing.assert_allclose([float(gamma) for gamma, _ in found], shares, rtol=1e-6)
    chances = [0, 0.1, 0.2, 0.3, 0.4, 0.4]
    np.testing.assert_allclose([float(alpha) for _, alpha in found], chances, rtol=1e-6)
    assert targeted_dropout.ramped(jnp.int32(0), 0, 0.5, 0.4) == (0.5, 0.4)


@pytest.mark.parametrize("name", ["gate", "unit_gate"])
def test_targeted_weights_drop_with_probability_alpha_and_others_never(name):
    gate = targeted(name, ramp=0.0, alpha=0.3)
    goes = 1 - np.asarray(mask_at(gate, 0.6)["fc"]["kernel"])

    @jax.jit
    def draws(keys):
        def dropped(key):
            effective, penalty = gate.apply(key, jnp.int32(0), (), COLUMNS, jnp.float32(0.6))
            kernel = effective["fc"]["kernel"]
            return kernel == 0, (kernel == 0) | (kernel == COLUMNS["fc"]["kernel"]), penalty

        return jax.vmap(dropped)(keys)

    dropped, unscaled, penalty = draws(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(dropped.mean(0), 0.3 * goes, atol=0.03)  # four deviations
    assert unscaled.all() and not penalty.any()
    if name == "unit_gate":  # columns go as a whole
        assert (dropped == dropped[:, :1]).all()


def test_a_dropped_weight_has_no_gradient_in_its_step():
    gate = targeted(ramp=0.0, alpha=1.0)

    def total(params):
        effective, _ = gate.apply(KEY, jnp.int32(0), (), params, jnp.float32(0.5))
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(effective))

    slopes = jax.grad(total)(COLUMNS)["fc"]["kernel"]
    assert slopes.tolist() == mask_at(gate, 0.5)["fc"]["kernel"]


# --- soft weight sharing -------------------------------------------------------------------------

PRIOR = Mixture(
    jnp.array([-0.5, 0.25]), jnp.array([np.log(400), np.log(100), 2.0]), jnp.array([0.3, 1.0])
)


def shared(keep=None, **options):
    return soft_weight_sharing.gate(PRUNABLE, keep, 0, SETTING, **options)


def test_the_mixtures_likelihood_and_its_gamma_priors_are_those_of_plain_numpy(mlp):
    def reference(g, params):
        means, precisions = (
            np.array([0, *g.means], float),
            np.exp(np.asarray(g.log_precisions, "d")),
        )
        others = np.exp(np.asarray(g.logits, float))
        shares = np.array([0.9, *(0.1 * others / others.sum())])
        total = 0.0
        for path in PRUNABLE:
            for w in np.asarray(masks.pick(params, (path,))[0], float).ravel():
                normal = np.sqrt(precisions / (2 * np.pi)) * np.exp(
                    -precisions * (w - means) ** 2 / 2
                )
                total -= np.log(np.sum(shares * normal))
        for i, precision in enumerate(precisions):
            a, b = (5e3, 2.0) if i == 0 else (250.0, 0.1)
            total -= (a - 1) * np.log(precision) - b * precision
        return total

    small = jax.tree.map(lambda w: 0.1 * w, mlp)
    other = PRIOR._replace(log_precisions=PRIOR.log_precisions + jnp.array([0.2, -0.1, 0.3]))
    apply = jax.jit(partial(shared(zero=0.9).apply, KEY, jnp.int32(0)))
    ends = [(PRIOR, small), (other, small), (PRIOR, jax.tree.map(lambda w: 0.2 * w, mlp))]
    found = [float(apply(g, params, jnp.float32(2.0))[1]) for g, params in ends]
    expected = [0.02 * reference(g, params) for g, params in ends]  # N is 100
    # equal but for the priors' constants
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-4)
    mode = PRIOR._replace(log_precisions=jnp.log(jnp.array([2499.5, 2490.0, 2490.0])))
    np.testing.assert_allclose(soft_weight_sharing.precision_penalty(mode), 0, atol=1e-3)


def test_the_likelihoods_derivatives_are_those_of_the_plain_sum():
    prior = soft_weight_sharing.components_of(PRIOR, 0.9)
    weights = jnp.asarray([-0.7, -0.1, 0.0, 0.02, 0.4, 3.0])

    def plain(prior, weights):
        return jnp.sum(jax.nn.logsumexp(soft_weight_sharing.log_joint(prior, weights), -1))

    expected = jax.value_and_grad(plain, (0, 1))(prior, weights)
    found = jax.value_and_grad(soft_weight_sharing.log_likelihood, (0, 1))(prior, weights)
    chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=1e-5)


def test_a_mixture_starts_evenly_over_the_published_range_or_that_of_the_weights(mlp):
    g = shared().init(KEY, mlp)
    np.testing.assert_allclose(g.means, np.linspace(-0.6, 0.6, 15), atol=1e-7)
    np.testing.assert_allclose(np.exp(-g.log_precisions / 2), np.full(16, 0.25), rtol=1e-6)
    assert not g.logits.any()
    most = max(np.abs(leaf).max() for leaf in masks.pick(mlp, PRUNABLE))
    wide = shared(components=3, reach=None).init(KEY, mlp)
    np.testing.assert_allclose(wide.means, [-most, most], rtol=1e-6)


def test_divergences_are_those_of_numerical_integration():
    prior = soft_weight_sharing.components_of(PRIOR, 0.9)
    found = np.asarray(soft_weight_sharing.divergences(prior))
    x = np.linspace(-6, 6, 200_001)
    means, precisions = (np.asarray(a, float)[:, None] for a in (prior.means, prior.log_precisions))
    logs = precisions / 2 - np.exp(precisions) * (x - means) ** 2 / 2
    for i, j in ((0, 1), (1, 0), (2, 1), (0, 2)):
        density = np.exp(logs[i]) / np.sqrt(2 * np.pi)
        np.testing.assert_allclose(
            found[i, j], np.sum(density * (logs[i] - logs[j])) * (x[1] - x[0]), rtol=1e-4
        )
    assert np.isinf(np.diag(found)).all()


def test_merging_by_hand():
    # At equal variances of 1, the divergence is d² / 2: 0.005 of components 1 and 2, 0.0032 of 0
    # and 3. The latter merge first, at mean 0 and the mean variance; then the former.
    prior = Components(
        jnp.array([0.0, 2.0, 2.1, 0.08]), jnp.zeros(4), jnp.log(jnp.array([0.5, 0.1, 0.3, 0.1]))
    )
    merge = jax.jit(soft_weight_sharing.merged)
    for below, means, shares in (
        (0.003, [0, 2, 2.1, 0.08], [0.5, 0.1, 0.3, 0.1]),
        (0.004, [0, 2, 2.1, 0.08], [0.6, 0.1, 0.3, 0]),
        (0.006, [0, 2.075, 2.1, 0.08], [0.6, 0.4, 0, 0]),
    ):
        found = merge(prior, below)
        np.testing.assert_allclose(found.means, means, rtol=1e-6)
        np.testing.assert_allclose(np.exp(found.log_proportions), shares, rtol=1e-6, atol=1e-9)
    unequal = prior._replace(log_precisions=jnp.array([0.0, 0.0, -0.1, 5.0]))
    variance = np.exp(-merge(unequal, 0.02).log_precisions[1])  # KL .005 + .00256, and d² / 2
    np.testing.assert_allclose(variance, 0.25 * 1 + 0.75 * np.exp(0.1), rtol=1e-5)
    alone = merge(prior, 1e9)
    assert (soft_weight_sharing.log_odds(alone, jnp.ones(3)) == -jnp.inf).all()


def test_quantisation_and_its_masks_by_hand():
    # Components of deviation 0.1 at 0, -0.5 and 0.25, with shares 0.9, 0.05 and 0.05: a weight
    # leaves 0 past the middle by 0.01 log(18) / |mean| = 0.058 and 0.116.
    g = Mixture(jnp.array([-0.5, 0.25]), jnp.full(3, np.log(100.0)), jnp.zeros(2))
    params = {"w": jnp.array([[-0.4, -0.31, -0.30, 0.1], [0.0, 0.23, 0.25, 0.9]])}
    gate = soft_weight_sharing.gate(("w",), None, 0, SETTING, zero=0.9)
    start = gates.GatedStats({}, (), 0, 1.0)
    found = gates.hardened(gate, gates.Joint(params, g), start)
    np.testing.assert_allclose(found["w"], [[-0.5, -0.5, 0, 0], [0, 0, 0.25, 0.25]])
    exact = soft_weight_sharing.gate(("w",), 6, 0, SETTING, zero=0.9)
    found = gates.hardened(exact, gates.Joint(params, g), start)
    np.testing.assert_allclose(found["w"], [[-0.5, -0.5, -0.5, 0], [0, 0.25, 0.25, 0.25]])


def test_the_mixtures_optimiser_has_other_rates_for_means_than_for_the_rest(mlp):
    # Adam's first step is its rate, but for the sign
    gate = shared()
    rates = soft_weight_sharing.gate_optimizer(means=0.01, others=0.5)
    recipe = gates.recipe(gate, RECIPE._replace(optimizer=optax.sgd), rates)
    trained, stats = gates.start(gate, KEY, mlp, {"seen": jnp.int32(0)}, strength=1.0)
    sparse = recipe.sparsify(recipe.optimizer(0.25), masks.ones(trained), None, None)
    state = training.init(trained, stats, sparse)
    ones = jax.tree.map(jnp.ones_like, trained)
    updates, _ = sparse.update(ones, state.opt_state, state.params)
    np.testing.assert_allclose(updates.gate.means, -0.01, rtol=1e-5)
    for leaf in (updates.gate.log_precisions, updates.gate.logits):
        np.testing.assert_allclose(leaf, -0.5, rtol=1e-5)
    assert all((leaf == -0.25).all() for leaf in jax.tree.leaves(updates.weights))


def test_training_gathers_three_clusters_of_weights_at_three_values():
    """Without a task. The clusters are around -0.8, 0 and 0.9, of deviation 0.1."""
    cluster = np.repeat([0, -1, 1], (20, 4, 6))
    noise = 0.1 * np.random.default_rng(3).standard_normal(30)
    params = {"w": jnp.asarray(np.array([0, 0.9, -0.8])[cluster] + noise, float)}
    gate = soft_weight_sharing.gate(
        ("w",), None, 0, SETTING, components=3, zero=0.8, reach=0.85, sigma=0.15
    )
    optimizer = optax.adam(0.01)

    @jax.jit
    def train(trained):
        def step(carry, _):
            trained, state = carry
            slopes = jax.grad(
                lambda t: gate.apply(KEY, jnp.int32(0), t.gate, t.weights, jnp.float32(1))[1]
            )(trained)
            updates, state = optimizer.update(slopes, state)
            return (optax.apply_updates(trained, updates), state), ()

        trained, _ = jax.lax.scan(step, (trained, optimizer.init(trained)), length=500)[0]
        return trained.weights, gates.hardened(gate, trained, gates.GatedStats({}, (), 0, 1.0))

    weights, shared_weights = train(gates.Joint(params, gate.init(KEY, params)))
    np.testing.assert_array_equal(np.sign(shared_weights["w"]), cluster)
    assert len(np.unique(shared_weights["w"])) == 3
    np.testing.assert_allclose(weights["w"], shared_weights["w"], atol=0.03)


BAD_SHARING = {
    "components=1: must be 2 or more": {"components": 1},
    "zero=1: must be between 0 and 1": {"zero": 1},
    "reach=0: must be above 0": {"reach": 0},
    "sigma=0: must be above 0": {"sigma": 0},
}


@pytest.mark.parametrize("message", BAD_SHARING)
def test_bad_mixtures_are_refused(message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        shared(**BAD_SHARING[message])


def test_bad_settings_and_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"^examples=0: must be 1 or more$"):
        soft_weight_sharing.gate(PRUNABLE, None, 0, gates.Setting(1, 0))
    with pytest.raises(ValueError, match=r"^steps=0: must be 1 or more$"):
        targeted(steps=0)
    for name in ("alpha", "ramp"):
        with pytest.raises(ValueError, match=f"^{name}=1.5: must be from 0 to 1$"):
            targeted(**{name: 1.5})


# --- L0 regularisation ---------------------------------------------------------------------------

P_HALF = 1 / (1 + 11 ** (-2 / 3))
"""P(z ≠ 0) of a gate whose logit is 0."""


def zeros_of(gate, params):
    return jax.tree.map(jnp.zeros_like, gate.init(KEY, params))


def test_the_penalty_of_l0_by_hand(mlp):
    # 100 examples; 12 and 10 weights, whose gates are open with the same probability
    gate = l0.gate(PRUNABLE, None, 0, SETTING, weight_decay=0.3)
    _, penalty = gate.apply(KEY, jnp.int32(0), zeros_of(gate, mlp), mlp, jnp.float32(2))
    squares = sum((mlp[layer]["kernel"] ** 2).sum() for layer in ("fc1", "out"))
    np.testing.assert_allclose(penalty, P_HALF * (2 * 22 + 0.15 * squares) / 100, rtol=1e-5)


def test_weights_of_l0_are_those_times_their_gates(mlp):
    gate = made("l0", None)
    g = jax.tree.map(lambda w: 9 * w, mlp)
    effective, _ = gate.apply(KEY, jnp.int32(0), g, mlp, jnp.float32(1))
    first, _ = jax.random.split(KEY)
    z = hard_concrete.sample(first, g["fc1"]["kernel"])
    assert (z == 0).any() and (z > 0).any()
    np.testing.assert_array_equal(effective["fc1"]["kernel"], mlp["fc1"]["kernel"] * z)
    for layer, leaf in (("fc1", "bias"), ("fc2", "kernel")):
        np.testing.assert_array_equal(effective[layer][leaf], mlp[layer][leaf])
    mask, weights = gate.harden(g, mlp), gate.weights(g, mlp)
    w = mlp["fc1"]["kernel"]
    at_test = np.clip(1.2 / (1 + np.exp(-9 * w)) - 0.1, 0, 1)
    np.testing.assert_allclose(weights["fc1"]["kernel"], w * at_test, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(mask["fc1"]["kernel"], at_test > 0)
    assert 0 < (at_test > 0).sum() < 12


def test_first_gates_of_the_input_layer_are_open_more_often(mlp):
    g = l0_groups.gate(PRUNABLE, None, 0, SETTING, inputs=("fc1/kernel",)).init(KEY, mlp)
    assert {path: a.shape for path, a in g.items()} == {"fc1/kernel": (3,), "out/kernel": (5,)}
    np.testing.assert_allclose(g["fc1/kernel"], np.log(4), atol=0.05)
    np.testing.assert_allclose(g["out/kernel"], 0, atol=0.05)
    with pytest.raises(ValueError, match="inputs: 'fc2/kernel' has no gates"):
        l0_groups.gate(PRUNABLE, None, 0, SETTING, inputs=("fc2/kernel",))
    with pytest.raises(ValueError, match="weight_decay=-1: must be 0 or more"):
        l0.gate(PRUNABLE, None, 0, SETTING, weight_decay=-1)


def cnn():
    """One convolution of 3 filters on 2 channels, 2 weights each, and a dense layer on 4 inputs."""
    draw = np.random.default_rng(5)
    shapes = {"conv1": (1, 1, 2, 3), "out": (4, 2)}
    return {
        layer: {
            "kernel": draw.normal(size=shape).astype("f"),
            "bias": draw.normal(size=shape[-1]).astype("f"),
        }
        for layer, shape in shapes.items()
    }


GROUPED = ("conv1/kernel", "out/kernel")


def test_the_penalty_of_groups_by_hand():
    # filters have 2 weights and a bias, inputs 2 weights and no bias
    params, gate = cnn(), l0_groups.gate(GROUPED, None, 0, SETTING, weight_decay=0.3)
    _, penalty = gate.apply(KEY, jnp.int32(0), zeros_of(gate, params), params, jnp.float32(2))
    conv, out = params["conv1"], params["out"]
    squares = sum((leaf**2).sum() for leaf in (conv["kernel"], conv["bias"], out["kernel"]))
    np.testing.assert_allclose(penalty, P_HALF * (2 * 17 + 0.15 * squares) / 100, rtol=1e-5)


def test_groups_are_filters_with_their_biases_and_inputs_of_dense_layers():
    params, gate = cnn(), l0_groups.gate(GROUPED, None, 0, SETTING)
    g = {"conv1/kernel": jnp.array([9.0, -9, 9]), "out/kernel": jnp.array([-9.0, -9, 9, 9])}
    mask = gate.harden(g, params)
    np.testing.assert_array_equal(mask["conv1"]["kernel"][0, 0], [[True, False, True]] * 2)
    np.testing.assert_array_equal(mask["conv1"]["bias"], [True, False, True])
    np.testing.assert_array_equal(mask["out"]["kernel"].all(1), [False, False, True, True])
    assert mask["out"]["bias"].all() and masks.count(mask, GROUPED) == 4 + 4
    assert l0_groups.architecture(mask, GROUPED) == "2-2"
    # σ(9) stretched is 1, and what is closed is zero, as in a training step
    weights = gate.weights(g, params)
    same(jax.tree.map(np.asarray, weights), jax.tree.map(np.asarray, masks.apply(mask, params)))
    sure = jax.tree.map(lambda a: 100 * a, g)
    effective, _ = gate.apply(KEY, jnp.int32(0), sure, params, jnp.float32(1))
    same(jax.tree.map(np.asarray, effective), jax.tree.map(np.asarray, weights))


@pytest.mark.parametrize(
    ("keep", "floor", "left"),
    [
        (14, 0, {"conv1/kernel": 6, "out/kernel": 8}),
        (7, 0, {"conv1/kernel": 6, "out/kernel": 0}),  # three groups of two, and one weight over
        (7, 1, {"conv1/kernel": 4, "out/kernel": 2}),  # one weight asks for one group
        ({"conv1/kernel": 5, "out/kernel": 2}, 0, {"conv1/kernel": 4, "out/kernel": 2}),
    ],
)
def test_counts_of_weights_are_met_by_whole_groups(keep, floor, left):
    params, gate = cnn(), l0_groups.gate(GROUPED, keep, floor, SETTING)
    g = {"conv1/kernel": jnp.array([3.0, 2, 1]), "out/kernel": jnp.array([-4.0, -3, -2, -1])}
    mask = gate.harden(g, params)
    assert masks.counts(mask, GROUPED) == left
    kept = np.asarray(mask["conv1"]["kernel"][0, 0])
    assert (kept[0] == kept[1]).all() and (mask["conv1"]["bias"] == kept[0]).all()
    if left["conv1/kernel"] == 4:
        assert kept[0].tolist() == [True, True, False]


def test_all_log_alpha_are_clamped_after_a_step(mlp):
    for name in ("l0", "l0_groups"):
        gate = made(name)
        far = jax.tree.map(lambda a: jnp.full_like(a, 4.6), gate.init(KEY, mlp))
        trained = gates.Joint(mlp, far)
        optimizer = gates.optimizer(gate, optax.sgd(0.1), optax.sgd(10.0))
        gradient = jax.tree.map(lambda a: jnp.full_like(a, -1), trained)
        updates, _ = optimizer.update(gradient, optimizer.init(trained), trained)
        after = jax.tree.map(jnp.add, trained, updates)
        for leaf in jax.tree.leaves(after.gate):
            np.testing.assert_allclose(leaf, np.log(100), rtol=1e-6)
        assert (after.weights["fc1"]["kernel"] > mlp["fc1"]["kernel"]).all()


# --- sparse variational dropout ------------------------------------------------------------------


def divergence_by_integration(log_alpha):
    """`E log|1 + sqrt(a) e| - log(a) / 2 + (gamma + log 2) / 2`, which is 0 for large a."""
    t = np.linspace(-30, 12, 200_001)  # log|u|, u = 1 + sqrt(a) e
    std = np.exp(log_alpha / 2)
    density = sum(np.exp(-(((sign * np.exp(t) - 1) / std) ** 2) / 2) for sign in (-1, 1))
    mean = np.trapezoid(t * np.exp(t) * density, t) / (std * np.sqrt(2 * np.pi))
    return mean - log_alpha / 2 + (np.euler_gamma + np.log(2)) / 2


def test_the_divergence_from_the_log_uniform_prior_is_that_of_integration():
    log_alphas = np.linspace(-7.5, 7.5, 31)
    expected = [divergence_by_integration(a) for a in log_alphas]
    got = variational_dropout.divergence(jnp.asarray(log_alphas, jnp.float32))
    np.testing.assert_allclose(got, expected, atol=0.0095)
    assert np.abs(np.asarray(got) - expected).max() > 0.001  # it is an approximation
    assert (np.diff(got) < 0).all()


def test_the_warm_up_by_hand():
    at = {0: 0, 5: 0, 10: 1 / 3, 15: 2 / 3, 20: 1, 200: 1}
    for epoch, expected in at.items():
        got = variational_dropout.warm_up(jnp.int32(epoch * 7), 200 * 7)
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_variational_dropout_by_hand(mlp):
    gate = made("variational_dropout", None)
    # log alpha is 2.9 at the weights of which `small` is False, and 3.1 at the others
    small = jax.tree.map(lambda w: w > 0, mlp)
    wanted = jax.tree.map(lambda s: jnp.where(s, 3.1, 2.9), small)
    g = jax.tree.map(lambda w, a: jnp.log(w**2) + a, mlp, wanted)
    (mean, variance), penalty = gate.apply(KEY, jnp.int32(40), g, mlp, jnp.float32(0.5))
    for layer in ("fc1", "out"):
        kernel, gone = mlp[layer]["kernel"], np.asarray(small[layer]["kernel"])
        np.testing.assert_array_equal(mean[layer]["kernel"], np.where(gone, 0, kernel))
        alpha = np.where(gone, np.exp(3.1), np.exp(2.9))
        np.testing.assert_allclose(variance[layer]["kernel"], kernel**2 * alpha, rtol=1e-5)
    same((mean["fc2"], mean["out"]["bias"]), (mlp["fc2"], mlp["out"]["bias"]))
    assert not any(
        leaf.any() for leaf in jax.tree.leaves((variance["fc2"], variance["out"]["bias"]))
    )
    gone = sum(int(small[layer]["kernel"].sum()) for layer in ("fc1", "out"))
    each = [float(variational_dropout.divergence(a)) for a in (3.1, 2.9)]
    nats = gone * each[0] + (22 - gone) * each[1]
    np.testing.assert_allclose(penalty, 0.5 * nats / SETTING.examples, rtol=1e-4)
    assert gate.apply(KEY, jnp.int32(1), g, mlp, jnp.float32(1))[1] == 0  # step 1 of 40
    mask = gate.harden(g, mlp)
    same(masks.pick(mask, PRUNABLE), [~leaf for leaf in masks.pick(small, PRUNABLE)])


def test_variational_dropout_has_finite_gradients_at_zero_weights(mlp):
    gate, zero = made("variational_dropout"), masks.zeros(mlp)

    def penalty(g, weights):
        (mean, variance), nats = gate.apply(KEY, jnp.int32(40), g, weights, jnp.float32(1))
        return nats + sum(jnp.sum(leaf) for leaf in jax.tree.leaves((mean, variance)))

    for weights in (zero, jax.tree.map(lambda leaf: leaf + 1e-25, zero), mlp):
        slopes = jax.grad(penalty, (0, 1))(gate.init(KEY, weights), weights)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


# --- group normal-Jeffreys -----------------------------------------------------------------------


def test_the_divergence_of_weights_given_their_scale_is_that_of_samples():
    mean, log_variance, z = 0.7, -1.2, 0.3
    std = np.exp(log_variance / 2)
    w = z * (mean + std * np.random.default_rng(0).normal(size=1_000_000))
    log_q = -(((w - z * mean) / (z * std)) ** 2) / 2 - np.log(z * std)
    log_p = -((w / z) ** 2) / 2 - np.log(z)
    got = normal_jeffreys.weight_divergence(jnp.float32(mean), jnp.float32(log_variance))
    np.testing.assert_allclose(got, np.mean(log_q - log_p), atol=5e-3)


def conv_net(number=3):
    """A convolution `[1, 2, 1, 3]` with biases, and a dense layer `[3, 2]`."""
    draw = np.random.default_rng(number).normal
    return {
        "conv": {"kernel": jnp.asarray(draw(size=(1, 2, 1, 3)), jnp.float32), "bias": jnp.ones(3)},
        "out": {"kernel": jnp.asarray(draw(size=(3, 2)), jnp.float32), "bias": jnp.ones(2)},
    }


def test_normal_jeffreys_by_hand():
    params, leaves = conv_net(), ("conv/kernel", "out/kernel")
    gate = JOINT_GATES["normal_jeffreys"](leaves, None, 0, SETTING)
    m = {leaf: jnp.asarray([2.0, -1.0, 0.5]) for leaf in leaves}
    log_alpha = {"conv/kernel": jnp.asarray([-3.1, 1.0, -4.0]), "out/kernel": jnp.full(3, -5.0)}
    g = normal_jeffreys.Posterior(
        m,
        {leaf: jnp.log(m[leaf] ** 2) + log_alpha[leaf] for leaf in leaves},
        {leaf: jnp.full_like(masks.pick(params, (leaf,))[0], -2.0) for leaf in leaves},
    )
    (mean, variance), penalty = gate.apply(KEY, jnp.int32(40), g, params, jnp.float32(2))
    z = mean["conv"]["bias"]  # the biases are 1
    kernel = params["conv"]["kernel"]
    np.testing.assert_allclose(mean["conv"]["kernel"], kernel * z[None, None, None], rtol=1e-6)
    expected = np.broadcast_to(np.exp(-2) * z**2, (1, 2, 1, 3))
    np.testing.assert_allclose(variance["conv"]["kernel"], expected, rtol=1e-5)
    rows = np.asarray(mean["out"]["kernel"] / params["out"]["kernel"])
    np.testing.assert_allclose(rows[:, 0], rows[:, 1], rtol=1e-5)
    assert len(np.unique(rows[:, 0].round(4))) == 3
    same(mean["out"]["bias"], params["out"]["bias"])
    nats = sum(
        np.sum(variational_dropout.divergence(log_alpha[leaf]))
        + np.sum((np.exp(-2) + masks.pick(params, (leaf,))[0] ** 2 - 1 + 2) / 2)
        for leaf in leaves
    )
    np.testing.assert_allclose(penalty, 2 * nats / SETTING.examples, rtol=1e-5)
    # the drawn scales have mean m and standard deviation s
    drawn = jax.vmap(lambda k: gate.apply(k, jnp.int32(0), g, params, 0.0)[0].mean["conv"]["bias"])(
        jax.random.split(KEY, 4000)
    )
    s = np.abs(m["conv/kernel"]) * np.exp(np.asarray(log_alpha["conv/kernel"]) / 2)
    np.testing.assert_allclose((drawn.mean(0) - m["conv/kernel"]) / s, 0, atol=5 / 4000**0.5)
    np.testing.assert_allclose(drawn.std(0) / s, 1, atol=5 / 8000**0.5)
    mask = gate.harden(g, params)
    expected = np.broadcast_to([True, False, True], (1, 2, 1, 3))
    np.testing.assert_array_equal(mask["conv"]["kernel"], expected)
    np.testing.assert_array_equal(mask["conv"]["bias"], [True, False, True])
    assert mask["out"]["kernel"].all() and mask["out"]["bias"].all()
    weights = gate.weights(g, params)
    np.testing.assert_array_equal(weights["conv"]["bias"], m["conv/kernel"])
    np.testing.assert_allclose(weights["out"]["kernel"][1], -params["out"]["kernel"][1])


def test_groups_that_fit_are_kept():
    params, leaves = conv_net(), ("conv/kernel", "out/kernel")
    scores = [jnp.asarray([3.0, 6.0, 1.0]), jnp.asarray([5.0, 4.0, 2.0])]
    for keep, kept in {4: (1, 1), 5: (1, 1), 6: (1, 2), 9: (2, 2), 12: (3, 3)}.items():
        mask = groups.select(params, leaves, scores, keep, 0)
        assert masks.counts(mask, leaves) == {
            leaf: 2 * n for leaf, n in zip(leaves, kept, strict=True)
        }
    mask = groups.select(params, leaves, scores, 4, {"conv/kernel": 3, "out/kernel": 0})
    np.testing.assert_array_equal(mask["conv"]["bias"], [True, True, False])
    assert not mask["out"]["kernel"].any()


def test_the_precision_of_weights_by_hand():
    params = {"out": {"kernel": jnp.asarray([[0.5, -2.9], [0.25, 7.0]])}}
    # without variance of the scale, m = 2 and sigma = 0.06: variances are 0.0144, steps are 1/128
    g = normal_jeffreys.Posterior(
        {"out/kernel": jnp.full(2, 2.0)},
        {"out/kernel": jnp.full(2, -1000.0)},
        {"out/kernel": jnp.full((2, 2), 2 * np.log(0.06))},
    )
    mask = {"out": {"kernel": jnp.asarray([[True, True], [False, False]])}}
    # the largest mean is 5.8, 742 steps, in 10 bits
    assert normal_jeffreys.precision(g, params, mask) == {"out/kernel": (7, 11)}
    none = masks.invert(masks.ones(params), ("out/kernel",))
    assert normal_jeffreys.precision(g, params, none) == {"out/kernel": (0, 0)}
