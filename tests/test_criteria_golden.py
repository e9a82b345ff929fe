"""Criteria of weights by hand, and by finite differences in float64, on a 3-2-2 net."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxtickets import losses, masks, nets
from jaxtickets.criteria import CRITERIA, Evidence, grasp
from jaxtickets.criteria.initial_final import FUNCTIONS, SAME_SIGN
from jaxtickets.criteria.units import UNIT_CRITERIA
from jaxtickets.recipes import iterative_pruning
from jaxtickets.types import Model, Split, Units

KEY = jax.random.key(0)
PARAMS = {
    "fc1": {
        "bias": np.array([0.25, -0.5]),
        "kernel": np.array([[1.0, -1.5], [0.5, 1.25], [-0.75, 0.5]]),
    },
    "out": {"bias": np.array([-0.25, 0.5]), "kernel": np.array([[1.5, -1.0], [0.5, -0.75]])},
}
BATCHES = Split(
    np.array([[[0, 3, 1], [2, 2, 0], [4, 1, 1]], [[3, 0, 2], [1, 4, 3], [0, 0, 4]]], "u1"),
    np.array([[0, 1, 1], [0, 0, 1]], "i"),
)
GRADED = ("snip", "grasp", "taylor", "fisher", "obd")


def vector(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def tree(weights):
    leaves, treedef = jax.tree.flatten(PARAMS)
    parts = np.split(weights, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return treedef.unflatten([p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)])


WEIGHTS = vector(PARAMS)  # 2 biases, 6 weights, 2 biases, 4 weights
KERNELS = vector(jax.tree.map(lambda w: np.full(w.shape, w.ndim == 2), PARAMS))


def prepare(images):
    return images / 2.0 - 0.75


def forward(params, x, act):
    x = act(x @ params["fc1"]["kernel"] + params["fc1"]["bias"][None])
    return x @ params["out"]["kernel"] + params["out"]["bias"][None]


class Net(NamedTuple):
    """A net's evidence, and `cost(weights, images, labels)`, its cross-entropy in float64."""

    evidence: Evidence
    cost: Callable[..., Any]


def make(act):
    def apply(params, stats, images, key, train):
        del key, train
        return forward(params, images, lambda x: act(x, jnp)), stats

    def cost(weights, images, labels):
        logits = forward(tree(weights), prepare(images), lambda x: act(x, np))
        chosen = np.take_along_axis(logits, labels[:, None], 1)[:, 0]
        return np.mean(np.log(np.exp(logits).sum(1)) - chosen)

    params = jax.tree.map(lambda w: w.astype("f"), PARAMS)
    model = Model(lambda key: (params, {}), apply)
    loss = losses.classification(model, prepare)
    seen = Evidence(params, params, {}, masks.ones(params), BATCHES, loss, model, prepare)
    return Net(seen, cost)


ACTS = {"linear": lambda x, xp: x, "relu": lambda x, xp: xp.maximum(x, 0)}


@pytest.fixture(scope="module", params=ACTS)
def net(request):
    return make(ACTS[request.param])


@pytest.fixture(scope="module")
def scores(net):
    """Name -> scores of the criteria that differentiate, as vectors; GraSP's at temperature 1."""
    graded = {name: CRITERIA[name].score for name in GRADED}
    graded["grasp"] = partial(grasp.score, temperature=1.0)
    table = jax.jit(lambda: {name: score(KEY, net.evidence) for name, score in graded.items()})()
    return {name: vector(scores) for name, scores in table.items()}


def slope(f, x, step=1e-4):
    """df/dx by central differences."""
    return np.array([(f(x + d) - f(x - d)) / (2 * step) for d in step * np.eye(len(x))])


def of_batches(net):
    """The gradient of each batch's loss."""
    return [slope(lambda w, b=b: net.cost(w, *b), WEIGHTS) for b in zip(*BATCHES, strict=True)]


def mean_cost(net):
    """The loss of all batches: they are of one size."""
    pool = BATCHES.images.reshape(-1, 3), BATCHES.labels.ravel()
    return lambda weights: net.cost(weights, *pool)


def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-6 * np.abs(expected).max())


# --- gradients and curvature ---------------------------------------------------------------------


def test_snip_is_the_share_of_the_slope_of_the_mean_loss(net, scores):
    slopes = np.abs(WEIGHTS * np.mean(of_batches(net), 0))
    assert_close(scores["snip"], slopes / slopes.sum())


def test_taylor_is_the_mean_over_batches_of_the_squared_slope(net, scores):
    assert_close(scores["taylor"], np.mean([(WEIGHTS * g) ** 2 for g in of_batches(net)], 0))


def test_with_one_batch_taylor_ranks_as_snip(net):
    pool = Split(BATCHES.images.reshape(1, 6, 3), BATCHES.labels.reshape(1, 6))
    seen = net.evidence._replace(batches=pool)
    snip, taylor = (vector(CRITERIA[name].score(KEY, seen)) for name in ("snip", "taylor"))
    np.testing.assert_array_equal(np.argsort(snip), np.argsort(taylor))


def test_fisher_is_half_the_mean_over_examples_of_the_squared_slope(net, scores):
    images, labels = BATCHES.images.reshape(6, 1, 3), BATCHES.labels.reshape(6, 1)
    slopes = [
        slope(lambda w, e=e: net.cost(w, *e), WEIGHTS) for e in zip(images, labels, strict=True)
    ]
    assert_close(scores["fisher"], 0.5 * WEIGHTS**2 * np.mean(np.square(slopes), 0))


def test_grasp_is_the_weight_times_hessian_times_the_gradient_in_kernels(net, scores):
    def gradient(weights):
        return slope(mean_cost(net), weights)

    flow = KERNELS * gradient(WEIGHTS)
    product = (gradient(WEIGHTS + 1e-3 * flow) - gradient(WEIGHTS - 1e-3 * flow)) / 2e-3
    assert_close(scores["grasp"], WEIGHTS * product)


def test_grasp_is_minus_half_of_what_the_squared_gradient_norm_gains_as_a_weight_goes(net, scores):
    def norm(shares):
        """The squared norm of the kernels' gradient where each weight has lost a share."""
        return np.sum((KERNELS * slope(mean_cost(net), WEIGHTS * (1 - shares))) ** 2)

    assert_close(scores["grasp"], -0.5 * slope(norm, np.zeros(len(WEIGHTS)), 1e-3))


def test_the_flow_of_grasp_is_through_the_leaves_that_are_named(net):
    seen = net.evidence._replace(prunable=("out/kernel",))
    named, plain = (vector(CRITERIA["grasp"].score(KEY, e)) for e in (seen, net.evidence))
    flow = slope(mean_cost(net), WEIGHTS) * (np.arange(14) >= 10)
    product = slope(mean_cost(net), WEIGHTS + 1e-3 * flow)
    product = (product - slope(mean_cost(net), WEIGHTS - 1e-3 * flow)) / 2e-3
    ours = vector(grasp.score(KEY, seen, temperature=1.0))
    assert_close(ours, WEIGHTS * product)
    assert (named != plain).any()


def test_grasp_divides_the_logits_by_its_temperature(net):
    model = net.evidence.model

    def cooler(*arguments):
        logits, stats = model.apply(*arguments)
        return logits / 200, stats

    @jax.jit
    def both():
        cold = net.evidence._replace(model=model._replace(apply=cooler))
        return CRITERIA["grasp"].score(KEY, net.evidence), grasp.score(KEY, cold, temperature=1.0)

    ours, expected = map(vector, both())
    assert_close(ours, expected)
    assert np.abs(ours).max() > 0


def test_obd_is_half_the_curvature_of_the_loss_in_a_single_weight(net, scores):
    cost, step = mean_cost(net), 1e-3
    second = np.array(
        [
            (cost(WEIGHTS + d) + cost(WEIGHTS - d) - 2 * cost(WEIGHTS)) / step**2
            for d in step * np.eye(len(WEIGHTS))
        ]
    )
    assert_close(scores["obd"], 0.5 * second * WEIGHTS**2)


def test_obd_is_not_fisher(scores):
    ratio = scores["obd"] / scores["fisher"]
    assert ratio.max() > 1.4 * ratio.min()


def test_the_gradient_of_units_is_the_mean_size_of_the_slopes_of_their_incoming_weights(net):
    slopes = np.mean(of_batches(net), 0)
    wiring = tuple(Units(layer, 2, (layer,), (), ()) for layer in PARAMS)
    scores = UNIT_CRITERIA["gradient"].score(KEY, net.evidence, wiring)
    for layer, part in tree(slopes).items():
        assert_close(scores[layer], np.abs(part["kernel"]).mean(0))


# --- SynFlow -------------------------------------------------------------------------------------


def test_synflow_is_the_flow_through_a_weight_up_to_one_factor(net):
    first, second = (np.abs(PARAMS[layer]["kernel"]) for layer in ("fc1", "out"))
    scores = CRITERIA["synflow"].score(KEY, net.evidence)
    got = np.concatenate([np.ravel(scores[layer]["kernel"]) for layer in ("fc1", "out")])
    flow = first * second.sum(1), first.sum(0)[:, None] * second
    ratio = got / np.concatenate([np.ravel(f) for f in flow])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert ratio[0] > 0 and not any(scores[layer]["bias"].any() for layer in scores)


def test_synflow_depends_on_neither_data_nor_biases_nor_signs(net):
    params = jax.tree.map(lambda w: -w if w.ndim == 2 else 7 + w, net.evidence.params)
    seen = net.evidence._replace(params=params, batches=Split(255 - BATCHES.images, None))
    got, expected = (vector(CRITERIA["synflow"].score(KEY, e)) for e in (seen, net.evidence))
    np.testing.assert_array_equal(got, expected)


def test_synflow_is_conserved_from_layer_to_layer():
    # A net with batch norms whose statistics are not those of white noise
    model = nets.functional(nets.make("cnn960", widths=(3, 5, 4, 2)), (21, 21, 2))
    draw = np.random.default_rng(0)
    params, stats = jax.eval_shape(model.init, KEY)
    params = jax.tree.map(lambda w: draw.standard_normal(w.shape).astype("f"), params)
    stats = jax.tree.map(lambda s: 3 + draw.random(s.shape).astype("f"), stats)
    batches = Split(np.zeros((1, 1, 21, 21, 2), "u1"), None)
    seen = Evidence(None, None, stats, None, batches, None, model)
    synflow = jax.jit(lambda params: CRITERIA["synflow"].score(KEY, seen._replace(params=params)))
    scores, of_sizes = synflow(params), synflow(jax.tree.map(np.abs, params))
    np.testing.assert_array_equal(vector(scores), vector(of_sizes))
    totals = [jnp.sum(leaf) for leaf in masks.pick(scores, masks.prunable(params))]
    totals += [jnp.sum(scores[f"bn{layer}"]["scale"]) for layer in range(1, 5)]
    assert len(totals) == 9 and totals[0] > 0
    np.testing.assert_allclose(totals, totals[0], rtol=1e-4)


def layers(head, norm=lambda x: x, scale=1.0):
    """Evidence of a 3-4-4-2 net with a residual branch, and what it is given on its way."""
    draw = np.random.default_rng(3)
    shapes = {"fc1": (3, 4), "branch": (4, 4), "out": (4, 2)}
    params = {name: {"kernel": draw.standard_normal(s).astype("f")} for name, s in shapes.items()}
    params["norm"] = {"scale": np.full(4, scale, "f")}

    def apply(params, stats, images, key, train):
        del key, train
        x = norm(images @ params["fc1"]["kernel"])
        x = x + (x @ params["branch"]["kernel"]) * params["norm"]["scale"][None]
        return head(x @ params["out"]["kernel"]), stats

    model = Model(lambda key: (params, {}), apply)
    return Evidence(params, params, {}, masks.ones(params), BATCHES, None, model, None)


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-5)


UNFIT = {
    "layer norm": (lambda x: x, layer_norm),
    "softmax": (lambda x: jax.nn.softmax(x),),
    "log softmax": (lambda x: jax.nn.log_softmax(x),),
}


@pytest.mark.parametrize("name", UNFIT)
def test_synflow_refuses_a_net_whose_flow_cancels_out(name):
    seen = layers(*UNFIT[name])
    with pytest.raises(ValueError, match=r"SynFlow can't score this net: .* cancels out"):
        CRITERIA["synflow"].score(KEY, seen)
    assert np.isnan(vector(jax.jit(lambda: CRITERIA["synflow"].score(KEY, seen))())).all()
    with pytest.raises(ValueError, match="SynFlow can't score this net"):
        iterative_pruning.prune(
            KEY, CRITERIA["synflow"], seen, masks.prunable(seen.params), 10, rounds=2
        )


class Attending(nn.Module):
    """Attention between the rows of an image, which are alike where all pixels are one."""

    @nn.compact
    def __call__(self, images, train):
        rows = nn.Dense(4, use_bias=False, name="embed")(images[..., 0])
        mixed = nn.MultiHeadDotProductAttention(2, use_bias=False, name="mix")(rows, rows)
        return nn.Dense(2, name="out")(mixed.mean(1))


def test_synflow_refuses_attention_whose_queries_see_no_flow():
    model = nets.functional(Attending(), (3, 3, 1))
    model = Model(jax.jit(model.init), jax.jit(model.apply, static_argnums=4))
    params, stats = model.init(KEY)
    batches = Split(np.zeros((1, 1, 3, 3, 1), "u1"), None)
    seen = Evidence(params, params, stats, masks.ones(params), batches, None, model)
    with pytest.raises(ValueError, match=r"the flow through mix/(key|query)/kernel cancels out"):
        CRITERIA["synflow"].score(KEY, seen)


def test_synflow_counts_a_scale_that_begins_at_zero_as_ones():
    zero, one = (CRITERIA["synflow"].score(KEY, layers(jax.nn.relu, scale=s)) for s in (0.0, 1.0))
    jax.tree.map(np.testing.assert_array_equal, zero, one)
    assert (zero["branch"]["kernel"] > 0).all() and (zero["norm"]["scale"] > 0).all()


def test_synflow_lets_nothing_through_a_leaf_that_the_mask_has_emptied():
    seen = layers(jax.nn.relu)
    mask = seen.mask | {"branch": {"kernel": np.zeros((4, 4), bool)}}
    params = masks.apply(mask, seen.params)
    scores = CRITERIA["synflow"].score(KEY, seen._replace(params=params, mask=mask))
    assert not scores["branch"]["kernel"].any() and (scores["fc1"]["kernel"] > 0).all()


# --- the plane of first and last weights ---------------------------------------------------------

# The means of |w| are 2 and 4, so alpha is 1/2; the third weight changed its sign.
FIRST = np.array([[1.0, -2.0], [4.0, 1.0]], "f")
LAST = np.array([[4.0, -1.0], [-10.0, 1.0]], "f")
PLANE = {
    "magnitude": [4, 1, 10, 1],
    "small_final": [-4, -1, -10, -1],
    "large_init": [1, 2, 4, 1],
    "small_init": [-1, -2, -4, -1],
    "large_init_large_final": [1, 0.5, 4, 0.5],
    "small_init_small_final": [-2, -2, -5, -1],
    "magnitude_increase": [3, -1, 6, 0],
    "movement": [3, 1, 14, 0],
}


def in_plane(name, first, last, mask=None):
    mask = masks.ones(first) if mask is None else mask
    return CRITERIA[name].score(KEY, Evidence(first, last, {}, mask, None, None))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_plane(name):
    got = in_plane(name, {"fc": {"kernel": FIRST}}, {"fc": {"kernel": LAST}})["fc"]["kernel"]
    np.testing.assert_array_equal(got, np.reshape(PLANE[name], (2, 2)))


def test_each_leaf_has_its_own_alpha():
    first, last = {"a": FIRST, "b": FIRST}, {"a": LAST, "b": 8 * LAST}
    got = in_plane("large_init_large_final", first, last)
    np.testing.assert_array_equal(got["a"], got["b"])


def test_alpha_is_of_the_weights_left():
    # those of the second column are gone: the means are 2.5 and 7, and not 2 and 4
    mask = {"w": np.array([[True, False], [True, False]])}
    got = in_plane("small_init_small_final", {"w": FIRST}, {"w": LAST}, mask)["w"]
    np.testing.assert_allclose(got[:, 0], [-4 * 2.5 / 7, -4])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_with_same_sign_what_changed_its_sign_comes_last(name, mlp, evidence):
    first, last = evidence.init_params, evidence.params
    plain, scores = (vector(in_plane(n, first, last)) for n in (name, name + SAME_SIGN))
    kept = vector(first) * vector(last) > 0
    assert 10 < kept.sum() < 43  # of 53
    assert scores[kept].min() >= 0 >= scores[~kept].max()
    order = np.argsort(plain[kept], kind="stable")
    assert (np.diff(scores[kept][order]) >= 0).all()  # the plain order, ties but for rounding
    order = np.argsort(-plain[~kept], kind="stable")
    assert (np.diff(scores[~kept][order]) >= 0).all()  # the other way round
    assert len(np.unique(scores)) > 42


def test_magnitude_same_sign_ranks_as_the_last_weight_in_the_direction_of_the_first(evidence):
    first, last = evidence.init_params, evidence.params
    scores = vector(in_plane("magnitude_same_sign", first, last))
    np.testing.assert_array_equal(
        np.argsort(scores), np.argsort(np.sign(vector(first)) * vector(last))
    )


def test_a_weight_that_began_at_zero_has_kept_its_sign():
    first, last = {"b": np.zeros(3, "f")}, {"b": np.array([-2.0, 0.0, 1.0], "f")}
    got = in_plane("magnitude_same_sign", first, last)["b"]
    np.testing.assert_array_equal(got, [2, 0, 1])
