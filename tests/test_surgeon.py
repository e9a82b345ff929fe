"""Second-order pruning: against brute force, removal one after another, and explicit inverses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxtickets import losses, masks, nets
from jaxtickets.compress import surgeon
from jaxtickets.compress.surgeon import (
    elimination,
    exact_obs,
    layer_inputs,
    layer_problems,
    obs,
    quadratic,
    woodfisher,
)
from jaxtickets.compress.surgeon.quadratic import Problem
from jaxtickets.criteria import Evidence
from jaxtickets.types import Split

IMAGE = (5, 5, 2)
OPTIONS = {"woodfisher": {"block": 16}, "exact_woodfisher": {"block": 16}}


class Net(nn.Module):
    """A convolution with stride, a depthwise one without bias, and an output layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, padding=1, name="conv")(x))
        x = nn.Conv(4, (2, 2), feature_group_count=4, use_bias=False, name="depth")(x)
        return nn.Dense(3, name="out")(nn.relu(x).reshape(len(x), -1))


def prepare(images):
    return images / jnp.float32(64) - 2


@pytest.fixture(scope="module")
def seen():
    """The evidence of `Net`: 18·4 + 4·4 + 36·3 = 196 weights, two batches of 20 images."""
    model = nets.functional(Net(), IMAGE)
    params, stats = model.init(jax.random.key(0))
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda a: a + 0.1 * draw.standard_normal(a.shape).astype("f"), params)
    batches = Split(
        draw.integers(0, 256, (2, 20, *IMAGE)).astype("u1"), draw.integers(0, 3, (2, 20), "i4")
    )
    loss = losses.classification(model, prepare)
    return Evidence(params, params, stats, masks.ones(params), batches, loss, model, prepare)


@pytest.fixture(scope="module")
def prunable(seen):
    return masks.prunable(seen.params)


@pytest.fixture(scope="module")
def studies(seen, prunable):
    return {
        name: study(seen, prunable, **OPTIONS.get(name, {}))
        for name, study in surgeon.SURGEONS.items()
    }


def rows_problem(rows=3, d=6, seed=0, removed=None):
    """Rows that share one Hessian."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((d, 4 * d))
    hessian = 2 * x @ x.T / x.shape[1]
    weights = draw.standard_normal((1, rows, d))
    removed = np.zeros(weights.shape, bool) if removed is None else removed
    weights = np.where(removed, 0, weights)
    return Problem(hessian[None], weights @ hessian, weights, removed)


def increase(hessian, weights, kept):
    """The least `½ δᵀ H δ` over all δ that remove what isn't kept: brute force by lstsq."""
    root = np.linalg.cholesky(hessian / 2).T  # |root δ|² is the loss
    found, *_ = np.linalg.lstsq(root[:, kept], root @ weights, rcond=None)
    best = np.zeros_like(weights)
    best[kept] = found
    return np.sum((root @ (best - weights)) ** 2), best


def one_by_one(inverse, weights, group, keep):
    """The naive elimination with rank-one downdates of the whole inverse."""
    inverse, weights, d = inverse.copy(), weights.copy(), len(weights)
    alive, order, added = np.ones(d, bool), [], []
    room = elimination.rooms(d, group, keep)
    while room.sum():
        can = alive & (room[np.arange(d) // group] > 0)
        cost = np.where(can, weights**2 / (2 * np.where(alive, np.diag(inverse), 1)), np.inf)
        q = int(np.argmin(cost))
        order.append(q)
        added.append(cost[q])
        weights = weights - inverse[:, q] * weights[q] / inverse[q, q]
        inverse = inverse - np.outer(inverse[:, q], inverse[q]) / inverse[q, q]
        alive[q], weights[~alive] = False, 0
        weights[q] = 0
        room[q // group] -= 1
    return order, added


# --- elimination ---------------------------------------------------------------------------------


@pytest.mark.parametrize("d, group, keep", [(6, None, 0), (30, None, 0), (30, 4, 2), (6, 4, 1)])
def test_the_trace_is_that_of_removing_one_weight_after_another(d, group, keep, monkeypatch):
    # small blocks and matrices: blocks, what is left of them, and smaller matrices all occur
    monkeypatch.setattr(elimination, "BLOCK", 4)
    monkeypatch.setattr(elimination, "SMALL", 8)
    monkeypatch.setattr(elimination, "MEMORY", {"cpu": 2 * 8 * d * d})  # two rows at a time
    one = rows_problem(d=d)
    found = quadratic.trace(one, "rows", group, keep)
    inverse = np.linalg.inv(one.hessians[0])
    for row, weights in enumerate(one.weights[0]):
        order, added = one_by_one(inverse, weights, group or d, keep)
        np.testing.assert_array_equal(found.order[row], order)
        np.testing.assert_allclose(found.losses[row], added, rtol=1e-9)
    elimination._eliminate.clear_cache()


def test_a_rows_losses_add_up_to_the_least_squares_of_the_kept_weights():
    one = rows_problem()
    found = quadratic.trace(one, "rows")
    for row, weights in enumerate(one.weights[0]):
        for gone in range(7):
            kept = np.ones(6, bool)
            kept[found.order[row, :gone]] = False
            loss, _ = increase(one.hessians[0], weights, kept)
            np.testing.assert_allclose(found.losses[row, :gone].sum(), loss, atol=1e-12)


def test_the_first_removal_is_the_best_of_all_and_greedy_removal_nears_the_best_subset():
    one = rows_problem(rows=1)
    order = quadratic.trace(one, "row").order[0]
    weights = one.weights[0, 0]
    for gone in (1, 2, 3):
        subsets = itertools.combinations(range(6), gone)
        loss = {s: increase(one.hessians[0], weights, ~np.isin(range(6), s))[0] for s in subsets}
        mine = loss[tuple(sorted(order[:gone].tolist()))]
        assert mine == min(loss.values()) if gone == 1 else mine < np.median([*loss.values()])


def test_values_are_those_of_brute_force_least_squares(monkeypatch):
    one = rows_problem()
    kept = np.random.default_rng(1).random(one.weights.shape) < 0.5
    for small in (128, 0):  # many rows at once, and row by row
        monkeypatch.setattr(quadratic, "SMALL", small)
        found = quadratic.solve(one, kept, "rows")
        for row, weights in enumerate(one.weights[0]):
            _, best = increase(one.hessians[0], weights, kept[0, row])
            np.testing.assert_allclose(found[0, row], best, atol=1e-12)


def test_removed_weights_go_first_and_at_no_loss():
    removed = np.zeros((1, 3, 6), bool)
    removed[0, 0, [4, 1]] = removed[0, 2, 5] = True
    one = rows_problem(removed=removed)
    found = quadratic.trace(one, "rows")
    assert set(found.order[0, :2]) == {1, 4} and found.order[2, 0] == 5
    np.testing.assert_array_equal(found.losses[[0, 0, 2], [0, 1, 0]], 0)
    assert (quadratic.removal(one, found).cost == -np.inf)[removed].all()
    # what goes then, goes as if the row had never had the others
    left = [0, 2, 3, 5]
    hessian, weights = one.hessians[0][np.ix_(left, left)], one.weights[0, 0, left]
    order, added = one_by_one(np.linalg.inv(hessian), weights, 4, 0)
    np.testing.assert_array_equal(found.order[0, 2:], np.array(left)[order])
    np.testing.assert_allclose(found.losses[0, 2:], added, rtol=1e-9)


def test_the_cheapest_next_weight_of_all_rows_goes_first():
    one = rows_problem(rows=4, d=8)
    found = quadratic.trace(one, "rows")
    cost, step = (a[0] for a in quadratic.removal(one, found))
    mine = np.lexsort((step.ravel(), cost.ravel()))
    heads, order = [0] * 4, []
    for _ in range(32):  # a queue of the rows' next weights
        row = min((r for r in range(4) if heads[r] < 8), key=lambda r: found.losses[r, heads[r]])
        order.append(row * 8 + found.order[row, heads[row]])
        heads[row] += 1
    np.testing.assert_array_equal(mine, order)


# --- layers --------------------------------------------------------------------------------------


def test_layers_compute_the_nets_outputs_from_their_vectors(seen, prunable):
    """A convolution is the dense form on its patches, with stride, padding and groups."""
    layers = layer_problems.find_layers(seen, prunable)
    assert [layer.path.split("/")[0] for layer in layers] == ["conv", "depth", "out"]
    assert [layer.groups for layer in layers] == [1, 4, 1]
    images = prepare(seen.batches.images[0])
    paths = [layer.path for layer in layers]
    read = layer_inputs.inputs(seen.model, seen.params, seen.stats, images, paths)
    nexts = [
        nn.Conv(4, (3, 3), strides=2, padding=1),
        nn.Conv(4, (2, 2), feature_group_count=4, use_bias=False),
        nn.Dense(3),
    ]
    for layer, module in zip(layers, nexts, strict=True):
        own = seen.params[layer.path.split("/")[0]]
        x, (given,) = layer_inputs.vectors(layer, read[layer.path][0]), read[layer.path]
        rows = layer_inputs.matrices(layer, own["kernel"])
        y = jnp.einsum("gnd,grd->ngr", x, rows).reshape(x.shape[1], -1)
        y = y + own["bias"][None] if "bias" in own else y
        wanted = module.apply({"params": own}, given)
        np.testing.assert_allclose(y, wanted.reshape(y.shape), rtol=1e-4, atol=1e-5)
        back = layer_inputs.kernel(rows, own["kernel"].shape)
        np.testing.assert_array_equal(back, own["kernel"])


def test_moments_are_means_over_all_vectors(seen, prunable):
    layers = layer_problems.find_layers(seen, prunable)
    found = layer_problems.moments(seen, layers)["depth/kernel"]
    images = prepare(seen.batches.images.reshape(-1, *IMAGE))
    (given,) = layer_inputs.inputs(seen.model, seen.params, {}, images, ["depth/kernel"]).values()
    x = np.float64(layer_inputs.vectors(layers[1], given[0]))
    np.testing.assert_allclose(found.now, x.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.cross, np.einsum("gni,gnj->gij", x, x) / x.shape[1], rtol=1e-5)


def test_output_curvature_is_the_diagonal_of_the_output_layers_fisher(seen):
    """In the logits the Gauss-Newton matrix is diag(p) - p pᵀ."""
    images = prepare(seen.batches.images[0])
    found = layer_inputs.output_curvature(seen.model, seen.params, {}, images, ["out/kernel"])
    p = jax.nn.softmax(seen.model.apply(seen.params, {}, images)[0])
    np.testing.assert_allclose(found["out/kernel"], jnp.sum(p * (1 - p), 0), rtol=1e-5)


class Linear(nn.Module):
    """Six inputs, three outputs."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="fc")(x)


def linear(inputs):
    model = nets.functional(Linear(), (6,))
    params, _ = model.init(jax.random.key(1))
    params = jax.tree.map(lambda a: a + 0.3, params)
    batches = Split(inputs.reshape(2, -1, 6).astype("f"), np.zeros((2, len(inputs) // 2), "i4"))
    return Evidence(
        params, params, {}, masks.ones(params), batches, None, model, lambda images: images
    )


def test_a_layer_with_a_bias_is_rebuilt_like_least_squares_with_a_column_of_ones():
    inputs = np.random.default_rng(2).standard_normal((20, 6)) @ np.triu(np.ones((6, 6))) + 1
    seen = linear(inputs)
    study = exact_obs.study(seen, ("fc/kernel",), damping=0.0, scale=exact_obs.output_error)
    ticket = surgeon.prune(study, 9)
    kept = np.asarray(ticket.mask["fc"]["kernel"])
    assert kept.sum() == 9
    x = np.hstack([inputs.astype("f"), np.ones((20, 1))]).astype(float)
    dense = np.vstack([seen.params["fc"]["kernel"], seen.params["fc"]["bias"][None]]).astype(float)
    for out in range(3):
        columns = np.append(kept[:, out], True)
        wanted, *_ = np.linalg.lstsq(x[:, columns], x @ dense[:, out], rcond=None)
        mine = np.append(ticket.params["fc"]["kernel"][kept[:, out], out], 0)
        mine[-1] = ticket.params["fc"]["bias"][out]
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-5)


def test_dead_inputs_get_diagonal_1_and_weight_0_and_go_first():
    inputs = np.random.default_rng(3).standard_normal((20, 6))
    inputs[:, 2], inputs[:, 4] = 0, 0.7  # the second is constant
    seen = linear(inputs)
    layers = layer_problems.find_layers(seen, ("fc/kernel",))
    found = layer_problems.moments(seen, layers)["fc/kernel"]
    kernel, mask = seen.params["fc"]["kernel"], seen.mask["fc"]["kernel"]
    for biases, dead in ((True, [2, 4]), (False, [2])):
        one = layer_problems.problem(layers[0], kernel, mask, found, 1e-2, biases)
        np.testing.assert_array_equal(one.hessians[0][dead], np.eye(6)[dead])
        assert (one.weights[0][:, dead] == 0).all() and one.removed[0].sum() == 3 * len(dead)
    study = exact_obs.study(seen, ("fc/kernel",), damping=0.0)
    ticket = surgeon.prune(study, 12)
    np.testing.assert_array_equal(ticket.mask["fc"]["kernel"][jnp.array([2, 4])], False)
    x = seen.batches.images[0]
    outputs = [seen.model.apply(p, {}, x)[0] for p in (seen.params, ticket.params)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)  # the bias takes over


def test_sequential_rebuilding_fits_dense_outputs_to_pruned_inputs(seen, prunable):
    """The output layer's weights: least squares from what the pruned net gives to dense logits."""
    study = exact_obs.study(seen, prunable, damping=0.0, sequential=True)
    ticket = surgeon.prune(study, dict(zip(prunable, (30, 10, 50), strict=True)))
    images = prepare(seen.batches.images.reshape(-1, *IMAGE))
    (read,) = layer_inputs.inputs(seen.model, ticket.params, {}, images, ["out/kernel"]).values()
    x = np.hstack([np.float64(read[0]), np.ones((40, 1))])
    y = np.float64(seen.model.apply(seen.params, {}, images)[0])
    kept = np.asarray(ticket.mask["out"]["kernel"])
    for out in range(3):
        columns = np.append(kept[:, out], True)
        wanted, *_ = np.linalg.lstsq(x[:, columns], y[:, out], rcond=None)
        mine = np.append(ticket.params["out"]["kernel"][kept[:, out], out], 0)
        mine[-1] = ticket.params["out"]["bias"][out]
        fits = [np.sum((x[:, columns] @ w - y[:, out]) ** 2) for w in (mine, wanted)]
        assert fits[0] <= fits[1] * (1 + 1e-3) + 1e-6


# --- promises of all surgeons --------------------------------------------------------------------


@pytest.mark.parametrize("name", surgeon.SURGEONS)
def test_counts_are_exact_and_pruned_weights_are_zero(name, studies, seen, prunable):
    wanted = {"conv/kernel": 11, "depth/kernel": 5, "out/kernel": 40}
    for keep in (60, wanted):
        ticket = surgeon.prune(studies[name], keep)
        found = {path: int(n) for path, n in masks.counts(ticket.mask, prunable).items()}
        assert found == keep or sum(found.values()) == keep
        masks.check_like(ticket.params, seen.params, "the ticket", "the net")
        for new, old, kept in zip(
            *map(jax.tree.leaves, (ticket.params, seen.params, ticket.mask)), strict=True
        ):
            assert new.dtype == old.dtype and (np.asarray(new)[~np.asarray(kept)] == 0).all()
    assert int(masks.count(surgeon.select(studies[name], 60, 2), prunable)) == 60


@pytest.mark.parametrize("name", surgeon.SURGEONS)
def test_a_whole_mask_changes_no_output(name, studies, seen):
    ticket = surgeon.rebuilt(studies[name], seen.mask)
    images = prepare(seen.batches.images[0])
    outputs = [seen.model.apply(params, {}, images)[0] for params in (ticket.params, seen.params)]
    np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", surgeon.SURGEONS)
def test_weights_pruned_before_stay_pruned(name, studies, seen, prunable):
    first = surgeon.select(studies[name], 100)
    again = surgeon.SURGEONS[name](seen._replace(mask=first), prunable, **OPTIONS.get(name, {}))
    second = surgeon.select(again, 60)
    assert not any(
        bool((a & ~b).any()) for a, b in zip(*map(jax.tree.leaves, (second, first)), strict=True)
    )
    with pytest.raises(ValueError, match="would keep weights that are pruned"):
        surgeon.prune(again, 101)


# --- each ----------------------------------------------------------------------------------------


def test_patterns_hold_exactly(seen, prunable):
    """18 inputs: four groups of four and two; 4 inputs: one group; 36: nine groups."""
    ticket = surgeon.prune_to_pattern(seen, prunable, 1, 4)
    for layer, inputs in (("conv", 18), ("depth", 4), ("out", 36)):
        kept = np.asarray(ticket.mask[layer]["kernel"]).reshape(inputs, -1)
        for start in range(0, inputs, 4):
            assert (kept[start : start + 4].sum(0) == 1).all()
        assert (np.asarray(ticket.params[layer]["kernel"]).reshape(inputs, -1)[~kept] == 0).all()


def test_woodfishers_inverse_is_that_of_the_papers_recursion(seen, prunable):
    damping, path = 1e-3, "conv/kernel"
    fisher = woodfisher.information(seen, prunable, 16)[path]
    assert fisher.shape == (5, 16, 16)  # 72 weights, the last block half empty

    def loss(params, image, label):
        logits, _ = seen.model.apply(params, {}, prepare(image[None]))
        return losses.cross_entropy(logits, label[None])

    examples = Split(*(a.reshape(-1, *a.shape[2:]) for a in seen.batches))
    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(seen.params, *examples)["conv"]["kernel"]
    rows = np.float64(gradients).reshape(40, 18, 4).transpose(0, 2, 1).reshape(40, 72)
    inverse = np.eye(16) / damping
    for g in rows[:, 16:32]:
        moved = inverse @ g
        inverse = inverse - np.outer(moved, moved) / (40 + g @ moved)
    np.testing.assert_allclose(
        np.linalg.inv(fisher[1] + damping * np.eye(16)), inverse, rtol=1e-3, atol=1e-2
    )
    back = woodfisher.from_blocks(
        np.asarray(woodfisher.to_blocks(seen.params["conv"]["kernel"], 16)), (3, 3, 2, 4)
    )
    np.testing.assert_array_equal(back, seen.params["conv"]["kernel"])


def test_obs_removes_what_the_hessian_says(seen, prunable):
    """Two weights at once move the others to the minimum of the quadratic model."""
    whole = obs.hessian(seen, prunable)
    values, vectors = np.linalg.eigh(whole)
    damped = (vectors * np.maximum(values, 1e-2)) @ vectors.T
    study = obs.study(seen, prunable, damping=1e-2)
    weights = np.float64(masks.flatten(seen.params, prunable))
    ticket = surgeon.prune(study, 194)
    kept = np.asarray(masks.flatten(ticket.mask, prunable))
    order, _ = one_by_one(np.linalg.inv(damped), weights, 196, 194)
    assert set(np.flatnonzero(~kept)) == set(order)
    _, best = increase(damped, weights, kept)
    np.testing.assert_allclose(masks.flatten(ticket.params, prunable), best, rtol=1e-3, atol=1e-5)


def test_the_hessian_is_that_of_finite_differences(seen):
    """In float64: steps that are small enough to cross no kink of a ReLU."""
    path = ("depth/kernel",)
    found = obs.hessian(seen, path)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), seen.params)
        (kernel,) = masks.pick(params, path)
        images = prepare(seen.batches.images.reshape(-1, *IMAGE))

        @jax.jit
        @jax.grad
        def gradient(kernel):
            logits, _ = seen.model.apply(masks.put(params, path, [kernel]), {}, images)
            return losses.cross_entropy(logits, seen.batches.labels.ravel())

        step = jnp.zeros(16).at[3].set(1e-5).reshape(kernel.shape)
        wanted = np.asarray(gradient(kernel + step) - gradient(kernel - step)) / 2e-5
    np.testing.assert_allclose(found[3], wanted.ravel(), rtol=1e-4, atol=1e-7)


def test_batch_norm_and_every_registered_kind_of_layer_is_known():
    for name in ("resnet20", "mobilenet_v2", "lenet5", "alexnet"):
        net = nets.make(name)
        shape = nets.image_shape(name)
        model = nets.functional(net, shape)
        params, stats = jax.eval_shape(model.init, jax.random.key(0))
        prunable = masks.prunable(params)
        images = jax.ShapeDtypeStruct((1, *shape), "float32")
        found = layer_inputs.layers(model, params, stats, images, prunable)
        assert {layer.path for layer in found} == set(prunable)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda s, p: exact_obs.study(s, (*p, "out/bias")), "out/bias is not the kernel of"),
        (lambda s, p: exact_obs.study(s, p, damping=-1.0), "damping -1.0: must be 0 or more"),
        (lambda s, p: exact_obs.study(s, ("out/kernel",), damping=1e-30), "Hessian of out/kernel"),
        (lambda s, p: surgeon.prune_to_pattern(s, p, 5, 4), "5 kept of every 4 weights"),
        (lambda s, p: woodfisher.study(s, p, damping=0.0), "damping 0.0: must be above 0"),
        (lambda s, p: woodfisher.study(s, p, block=0), "blocks of 0 weights"),
        (lambda s, p: woodfisher.study(flat(s), p), "the Fisher information is zero"),
        (lambda s, p: obs.study(s, p, damping=0.0), "damping 0.0: must be above 0"),
        (lambda s, p: obs.study(s._replace(params=big(), mask=masks.ones(big())), p), "at most"),
    ],
)
def test_bad_input_is_told_in_one_line(act, message, seen, prunable):
    few = seen._replace(batches=jax.tree.map(lambda a: a[:, :2], seen.batches))
    with pytest.raises(ValueError, match=message) as error:
        act(few, prunable)
    assert "\n" not in str(error.value)


def flat(evidence):
    """The evidence with a net that gives the same logits whatever its weights are."""

    def apply(params, stats, images, key=None, train=False):
        return jnp.zeros((len(images), 3)), stats

    return evidence._replace(model=evidence.model._replace(apply=apply))


def big():
    shapes = {"conv": (3, 3, 2, 4), "depth": (2, 2, 1, 4), "out": (2000, 3)}
    return {layer: {"kernel": np.ones(shape, "f")} for layer, shape in shapes.items()}
