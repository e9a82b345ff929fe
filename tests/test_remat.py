"""Blocks whose activations are computed again: the same numbers, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_big_nets import tiny

from jaxtickets import losses, nets
from jaxtickets.compress import graph
from jaxtickets.types import Split

KEY = jax.random.key(0)
SHAPE = (16, 16, 3)


def gradient(net, shape):
    """`(params, stats, batch) -> (gradient, (stats, metrics))` in training mode."""
    loss = losses.classification(nets.functional(net, shape), lambda images: images)
    return jax.jit(lambda *args: jax.grad(loss, has_aux=True)(*args, KEY))


def batch(n, shape):
    images = jax.random.normal(jax.random.key(1), (n, *shape))
    return Split(images, jnp.arange(n) % 4)


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2", "resnet18", "vgg11"])
def test_a_net_that_computes_again_has_the_same_numbers(name):
    # dropout is drawn again with the same key, and the statistics move once
    plain, again = tiny(name), tiny(name, remat=True)
    model = nets.functional(plain, SHAPE)
    params, stats = jax.jit(model.init)(KEY)
    assert jax.tree.structure(params) == jax.tree.structure(
        jax.eval_shape(nets.functional(again, SHAPE).init, KEY)[0]
    )
    seen = batch(3, SHAPE)
    expected, got = (gradient(net, SHAPE)(params, stats, seen) for net in (plain, again))
    for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_it_takes_less_memory():
    shape, sizes = (32, 32, 3), []
    for remat in (False, True):
        net = nets.make("resnet20", conv="lax", remat=remat, widths=(16,) * 12)
        params, stats = jax.eval_shape(nets.functional(net, shape).init, KEY)
        seen = jax.eval_shape(lambda: batch(64, shape))
        compiled = gradient(net, shape).lower(params, stats, seen).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.6 * sizes[0]


def test_units_and_files_of_such_a_net_are_those_of_the_plain_one():
    plain, again = tiny("resnet20"), tiny("resnet20", remat=True)
    assert graph.trace(again, SHAPE) == graph.trace(plain, SHAPE)
    assert nets.from_json(nets.to_json(again)) == again
    old = {key: value for key, value in nets.to_json(plain).items() if key != "remat"}
    assert nets.from_json(old) == plain


def test_a_net_without_blocks_refuses_in_one_line():
    with pytest.raises(ValueError, match="lenet5 has no attribute remat: it has"):
        nets.make("lenet5", remat=True)
