"""Local reparametrisation: what is drawn where, its moments, its gradients, and its zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxtickets import masks, nets
from jaxtickets.nets import convolution, gaussian
from jaxtickets.types import Gaussian, Model

KEY, OTHER = jax.random.split(jax.random.key(5))
MANY = 20_000


def model_of(function):
    """The model without statistics that computes `function(params, x)`."""
    return Model(lambda key: ({}, {}), lambda p, stats, x, key, train: (function(p, x), stats))


def outputs(function, mean, variance, x, key=KEY):
    params = Gaussian(mean, variance)
    return gaussian.local(model_of(function)).apply(params, {}, x, key, True)[0]


def draws(function, mean, variance, x):
    """`[MANY, ...]`: the outputs with as many keys."""
    keys = jax.random.split(KEY, MANY)
    return np.asarray(jax.jit(jax.vmap(lambda k: outputs(function, mean, variance, x, k)))(keys))


def normal(number, *shape):
    return jnp.asarray(np.random.default_rng(number).normal(size=shape), jnp.float32)


def linear(params, x):
    return x @ params["w"]


def test_the_outputs_of_a_linear_net_have_the_exact_moments_and_are_independent():
    mean, variance, x = {"w": normal(1, 3, 2)}, {"w": normal(2, 3, 2) ** 2}, normal(3, 4, 3)
    got = draws(linear, mean, variance, x)
    v = np.asarray(x**2 @ variance["w"])
    np.testing.assert_allclose(got.mean(0), x @ mean["w"], atol=5 * (v.max() / MANY) ** 0.5)
    np.testing.assert_allclose(got.var(0), v, rtol=5 * (2 / MANY) ** 0.5)
    correlation = np.corrcoef(got.reshape(MANY, -1).T)
    np.testing.assert_allclose(correlation, np.eye(8), atol=5 / MANY**0.5)


@pytest.mark.parametrize("form", ["im2col", "lax"])
def test_a_convolution_has_the_moments_of_drawn_weights(form, monkeypatch):
    # so few bytes that im2col takes two parts of two images, and one of one
    monkeypatch.setattr(convolution, "PATCHES", 2 * 9 * 2 * 4 * 4)
    convolve = convolution.CONVOLUTIONS[form]

    def net(params, x):
        return convolve(x, params["w"], (1, 1), "VALID", dimension_numbers=convolution.LAYOUT)

    mean, variance = {"w": normal(1, 3, 3, 2, 2)}, {"w": normal(2, 3, 3, 2, 2) ** 2}
    x = normal(3, 5, 4, 4, 2)
    assert gaussian.local_leaves(model_of(net), mean, {}, x) == ("w",)
    noise = jax.random.normal(OTHER, (MANY // 10, *mean["w"].shape))
    weights = mean["w"][None] + jnp.sqrt(variance["w"])[None] * noise
    drawn = np.asarray(jax.jit(lambda ws: lax.map(lambda w: net({"w": w}, x), ws))(weights))
    keys = jax.random.split(KEY, MANY // 10)
    local = np.asarray(
        jax.jit(lambda ks: lax.map(lambda k: outputs(net, mean, variance, x, k), ks))(keys)
    )
    error = (drawn.var(0).max() / len(drawn)) ** 0.5
    np.testing.assert_allclose(local.mean(0), drawn.mean(0), atol=7 * error)
    np.testing.assert_allclose(local.var(0), drawn.var(0), rtol=7 * (2 / len(drawn)) ** 0.5)
    # the weights are common to two examples, and what is drawn is not, in one part and in two
    for other in (1, 2):
        pair = np.corrcoef(local[:, 0, 0, 0, 0], local[:, other, 0, 0, 0])[0, 1]
        assert abs(pair) < 5 / len(local) ** 0.5


def test_without_variance_a_net_is_the_plain_one_bit_for_bit_with_finite_gradients(monkeypatch):
    monkeypatch.setattr(convolution, "PATCHES", 3 * 9 * 4 * 4 * 4)  # parts of three and of two

    def net(params, x):
        kernel, bias = params["conv"], params["bias"].reshape(1, 1, 1, 4)
        x = convolution.im2col(x, kernel, (1, 1), "SAME", dimension_numbers=convolution.LAYOUT)
        return jax.nn.relu(x + bias).reshape(len(x), -1) @ params["out"]

    params = {"conv": normal(1, 3, 3, 1, 4), "bias": normal(2, 4), "out": normal(3, 64, 3)}
    x, silent = normal(4, 5, 4, 4, 1), masks.zeros(params)

    @jax.jit
    @jax.value_and_grad
    def loss(weights):
        return jnp.sum(outputs(net, *weights, x) ** 2)

    plain = net(params, x)
    np.testing.assert_array_equal(plain, outputs(net, params, silent, x))
    value, slopes = loss(Gaussian(params, silent))
    np.testing.assert_allclose(value, jnp.sum(plain**2), rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    value, slopes = loss(Gaussian(params, jax.tree.map(lambda v: v + 1e-6, silent)))
    assert value != jnp.sum(plain**2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(slopes))
    whole = gaussian.local(model_of(net)).apply(params, {}, x)[0]
    np.testing.assert_array_equal(whole, net(params, x))


def test_gradients_by_hand():
    # y = x M + sqrt(x² V) e, so dy/dM = x and dy/dV = x² e / (2 sqrt(x² V))
    mean, variance, x = {"w": normal(1, 3, 1)}, {"w": normal(2, 3, 1) ** 2}, normal(3, 1, 3)
    std = np.sqrt(np.asarray(x**2 @ variance["w"]))
    noise = (np.asarray(outputs(linear, mean, variance, x)) - x @ mean["w"]) / std
    slopes = jax.jit(jax.grad(lambda m, v: outputs(linear, m, v, x)[0, 0], (0, 1)))(mean, variance)
    np.testing.assert_allclose(slopes[0]["w"], x.T, rtol=1e-5)
    np.testing.assert_allclose(slopes[1]["w"], x.T**2 * noise / (2 * std), rtol=1e-4)


@pytest.mark.parametrize("name", ["lenet300_100", "lenet5", "conv2"])
def test_all_kernels_of_nets_are_drawn_at_their_products(name):
    shape = nets.image_shape(name)
    model = nets.functional(nets.make(name, shape=shape), shape)
    params, stats = jax.eval_shape(model.init, KEY)
    images = jax.ShapeDtypeStruct((100, *shape), jnp.float32)
    assert gaussian.local_leaves(model, params, stats, images) == masks.prunable(params)


def test_uses_other_than_products_read_one_draw():
    def net(params, x):
        three, four = x
        same = params["scale"], 2 * params["scale"]
        twice = jnp.concatenate([params["half"], params["half"]])  # not independent
        wide = jnp.broadcast_to(params["row"], (3, 2))
        state = lax.scan(lambda c, _: (c @ params["state"], None), four @ params["w"], None, 2)[0]
        moved = jnp.pad(params["moved"].reshape(2, 3).T, ((0, 0), (1, 0)))
        others = three @ wide, four @ jax.nn.relu(params["custom"]), state
        return same, four @ twice, three @ moved, others

    shapes = {
        "scale": (2,), "half": (2, 4), "row": (1, 2), "custom": (4, 2), "state": (2, 2),
        "w": (4, 2), "moved": (6,),
    }  # fmt: skip
    mean = {name: normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    variance = jax.tree.map(jnp.ones_like, mean)
    images = normal(9, 5, 3), normal(8, 5, 4)
    assert gaussian.local_leaves(model_of(net), mean, {}, images) == ("moved", "w")
    got = jax.jit(lambda mean, variance: outputs(net, mean, variance, images))(mean, variance)
    (one, two), twice, moved, _ = got
    np.testing.assert_array_equal(two, 2 * one)
    assert (one != mean["scale"]).all()
    np.testing.assert_array_equal(moved[:, 0], 0)  # padding has no variance
    # five examples share one draw of the two rows of `half`, and so have outputs of rank two
    assert np.linalg.matrix_rank(np.asarray(twice), tol=1e-4) == 2


def test_what_cannot_be_sampled_is_refused():
    mean = {"w": normal(1, 3, 2)}
    with pytest.raises(ValueError, match="needs a key"):
        outputs(linear, mean, mean, normal(3, 4, 3), key=None)
    with pytest.raises(ValueError, match="the variances"):
        outputs(linear, mean, {"w": jnp.ones((3, 1))}, normal(3, 4, 3))
