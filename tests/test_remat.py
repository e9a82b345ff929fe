"""Blocks whose activations are computed again: the same numbers, of which fewer are stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_big_nets import tiny

from jaxtickets import losses, nets
from jaxtickets.compress import graph
from jaxtickets.types import Split

KEY = jax.random.key(0)
SHAPE = (32, 32, 3)


def loss_of(net, shape):
    return losses.classification(nets.functional(net, shape), lambda images: images)


def batch(n, shape):
    images = jax.random.normal(jax.random.key(1), (n, *shape))
    return Split(images, jnp.arange(n) % 4)


def test_a_net_that_computes_again_has_the_same_numbers():
    # the statistics of batch norm move once
    shape, seen = (16, 16, 3), batch(3, (16, 16, 3))
    plain, again = tiny("vgg11"), tiny("vgg11", remat=True)
    params, stats = jax.jit(nets.functional(plain, shape).init)(KEY)
    expected, got = (
        jax.jit(jax.grad(loss_of(net, shape), has_aux=True))(params, stats, seen, KEY)
        for net in (plain, again)
    )
    for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2", "resnet18", "vgg11"])
def test_the_backward_pass_is_left_with_the_blocks_inputs(name):
    # the leaves of a pullback are what it stores
    def stored(net):
        loss, seen = loss_of(net, SHAPE), jax.eval_shape(lambda: batch(8, SHAPE))
        params, stats = jax.eval_shape(nets.functional(net, SHAPE).init, KEY)
        pullback = jax.eval_shape(
            lambda p: jax.vjp(lambda p: loss(p, zeros(stats), zeros(seen), KEY)[0], p)[1], params
        )
        return jax.tree.structure((params, stats)), sum(
            leaf.size for leaf in jax.tree.leaves(pullback)
        )

    (of_plain, plain), (of_again, again) = (stored(tiny(name, remat=on)) for on in (False, True))
    assert of_again == of_plain and again < 0.8 * plain


def zeros(shapes):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def test_units_and_files_of_such_a_net_are_those_of_the_plain_one():
    plain, again = tiny("alexnet"), tiny("alexnet", remat=True)
    assert graph.trace(again, SHAPE)[0] == graph.trace(plain, SHAPE)[0]
    assert nets.from_json(nets.to_json(again)) == again
    old = {key: value for key, value in nets.to_json(plain).items() if key != "remat"}
    assert nets.from_json(old) == plain


def test_a_net_without_blocks_refuses_in_one_line():
    with pytest.raises(ValueError, match="lenet5 has no attribute remat: it has"):
        nets.make("lenet5", remat=True)
