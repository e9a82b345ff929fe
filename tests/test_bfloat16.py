"""Nets that compute in bfloat16: what is in it and what is not, and how close they come."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import data, losses, masks, nets, optimizers, training
from jaxtickets.data import augment
from jaxtickets.nets import convolution, layers
from jaxtickets.nets.convolution import lax_form

KEY = jax.random.key(0)
HALF = jnp.dtype(jnp.bfloat16)


def products(jaxpr):
    """The types of the operands of all products and convolutions, also within other operations."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield eqn.invars[0].aval.dtype, eqn.invars[1].aval.dtype
        for inner in jax.core.jaxprs_in_params(eqn.params):
            yield from products(inner)


DEEPER = {"resnet32", "resnet56", "resnet110", "resnet34", "vgg19"}
"""Nets that are one with another of the registry, but for their depth."""
ATTRIBUTES = {"preresnet": {"depth": 20}}


@pytest.mark.parametrize("name", [name for name in nets.names() if name not in DEEPER])
def test_every_net_has_products_in_bfloat16_and_all_that_is_kept_in_float32(name):
    shape = (32, 32, 3)
    net = lax_form(nets.make(name, **ATTRIBUTES.get(name, {})))
    model = nets.functional(net, shape)
    params, stats = jax.eval_shape(model.init, KEY)
    images = jax.ShapeDtypeStruct((2, *shape), HALF)
    closed, kept = jax.make_jaxpr(lambda *args: model.apply(*args, KEY, True), return_shape=True)(
        params, stats, images
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    *hidden, last = products(closed.jaxpr)
    assert set(hidden) == {(HALF, HALF)} and last == (jnp.dtype("float32"),) * 2


def run(dtype, steps=120):
    """A sparse net after its training on the bundled digits, its accuracy, and its mask."""
    digits = data.load("mnist5k")
    normalise = partial(augment.normalise, mean=digits.mean, std=digits.std, dtype=dtype)
    model = nets.functional(nets.make("lenet300_100", widths=(100, 50)), (28, 28, 1))
    params, stats = jax.jit(model.init)(KEY)
    mask = masks.random(jax.random.key(1), params, masks.prunable(params), 20_000)
    recipe = training.Recipe(
        model=model,
        loss=losses.classification(model, normalise),
        optimizer=lambda rate: optimizers.optimizer("adam", rate),
        prepare=normalise,
        augment=None,
        batch_size=100,
        every=steps,
    )
    splits = jax.tree.map(jnp.asarray, training.Splits(digits.train, digits.validation))
    watched, seen = jax.jit(
        lambda splits: training.train(recipe, KEY, 2e-3, params, stats, mask, splits, steps)
    )(splits)
    return watched.state, float(seen["accuracy"][0]), mask


def test_bfloat16_learns_the_digits_as_well_and_keeps_the_mask_exactly():
    state, accuracy, mask = run(jnp.bfloat16)
    plain, expected, _ = run(jnp.float32)
    assert accuracy == pytest.approx(expected, abs=0.01) and expected > 0.9
    for leaf, keep in zip(*map(jax.tree.leaves, (state.params, mask)), strict=True):
        assert leaf.dtype == jnp.float32 and not np.any(np.asarray(leaf)[~np.asarray(keep)])
    # its numbers are other ones
    assert np.any(np.asarray(state.params["fc1"]["kernel"]) != plain.params["fc1"]["kernel"])


def test_in_float32_a_nets_program_is_flaxs_own(monkeypatch):
    net = lax_form(nets.make("resnet20"))
    model = nets.functional(net, (28, 28, 3))
    params, stats = jax.eval_shape(model.init, KEY)
    images, programs = jax.ShapeDtypeStruct((2, 28, 28, 3), jnp.float32), []
    for half in (layers._half, lambda inputs: None):
        monkeypatch.setattr(layers, "_half", half)
        made = jax.make_jaxpr(lambda *args: model.apply(*args, KEY, True))(params, stats, images)
        programs.append(str(made))
    assert programs[0] == programs[1] and "bf16" not in programs[0]


def test_normalised_images_are_rounded_once():
    pixels = jax.random.randint(KEY, (2, 3, 3, 1), 0, 256).astype(jnp.uint8)
    exact = augment.normalise(pixels, (0.1307,), (0.3081,))
    half = augment.normalise(pixels, (0.1307,), (0.3081,), jnp.bfloat16)
    np.testing.assert_array_equal(half, exact.astype(jnp.bfloat16))


def test_a_depthwise_convolution_sums_in_float32():
    images = jax.random.normal(KEY, (1, 9, 9, 2), jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 2), jnp.bfloat16)
    call = partial(
        convolution.im2col,
        window_strides=(1, 1),
        padding="SAME",
        feature_group_count=2,
        dimension_numbers=convolution.LAYOUT,
    )
    got, exact = call(images, kernel), call(images.astype("f"), kernel.astype("f"))
    np.testing.assert_array_equal(got, exact.astype(jnp.bfloat16))
