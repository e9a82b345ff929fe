"""Sparse optimisers in a user's own loop: Flax NNX, dataclasses, sharded parameters, optax parts.

Masks are those of our loop on equal gradients, bit for bit.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxtickets import masks, training
from jaxtickets.dynamic.base import mask_of
from jaxtickets.dynamic.methods import METHODS

QUICK = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
KEY = jax.random.key(0)
EVERY, CALLS, KEPT = 2, 11, 24  # moves are calls 2, 5 and 8
PRUNABLE = ("a/kernel", "b/kernel")
INNER = optax.adam(0.1)


def start():
    first, second = jax.random.split(KEY)
    return {
        "a": {"bias": jnp.ones(5), "kernel": jax.random.normal(first, (6, 5))},
        "b": {"kernel": jax.random.normal(second, (5, 3))},
    }


SLOPES = jax.tree.map(
    lambda leaf: jax.random.normal(jax.random.key(leaf.size), (CALLS, *leaf.shape)), start()
)
"""The gradients of all calls."""


def rigl(mask, prunable):
    make, plan = METHODS["rigl"].make, METHODS["rigl"].plan
    counts = {path: int(count) for path, count in masks.counts(mask, prunable).items()}
    return make(INNER, mask, prunable, plan(4, counts, counts), EVERY)


def evolved(mask, prunable):
    make, plan = METHODS["set"].make, METHODS["set"].plan
    counts = {path: int(count) for path, count in masks.counts(mask, prunable).items()}
    return make(INNER, mask, prunable, plan(4, counts, counts), EVERY, KEY)


def granet(mask, prunable):
    make, plan = METHODS["granet"].make, METHODS["granet"].plan
    return make(INNER, mask, prunable, plan(4, KEPT, 15), EVERY, floor=3, shares="global")


def momentum(mask, prunable):
    make, plan = METHODS["sparse_momentum"].make, METHODS["sparse_momentum"].plan
    return make(INNER, mask, prunable, plan(4, KEPT, KEPT), EVERY, floor=3)


def rewired(mask, prunable):
    signs = masks.put(mask, prunable, masks.pick(start(), PRUNABLE))
    make = METHODS["deep_rewiring"].make
    return make(INNER, mask, prunable, signs, KEY, noise=0.1, decay=0.01)


MADE = {
    "rigl": rigl,
    "set": evolved,
    "granet": granet,
    "sparse_momentum": momentum,
    "deep_rewiring": rewired,
}
every_method = pytest.mark.parametrize("name", MADE)


def first_mask(params=None):
    mask = masks.random(KEY, start(), PRUNABLE, KEPT)
    return mask if params is None else filled(params, mask)


def filled(tree, values):
    """`values`, in the containers of `tree`, whose leaves have the same order."""
    return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(values))


def ours(name, slopes=SLOPES):
    """The state at the end of our loop by these gradients."""

    def loss(params, stats, batch, key):
        del key
        products = jax.tree.map(lambda p, g: jnp.sum(p * g[0]), params, batch)
        total = sum(jax.tree.leaves(products))
        return total, (stats, {"loss": total})

    optimizer = MADE[name](first_mask(), PRUNABLE)
    state = training.init(start(), {}, optimizer)
    run = QUICK(partial(training.advance, loss, optimizer, KEY))
    return run(state, jax.tree.map(lambda leaf: leaf[:, None], slopes))[0]


def own(optimizer, params, slopes):
    """The parameters and the state at the end of a plain optax loop."""

    def body(carry, slopes):
        params, state = carry
        updates, state = optimizer.update(filled(params, slopes), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (params, optimizer.init(params)), slopes)[0]


def assert_same(name, params, state, slopes=SLOPES):
    expected = ours(name, slopes)
    assert np.any(expected.mask["a"]["kernel"] != first_mask()["a"]["kernel"])
    for found, mask in zip(*map(jax.tree.leaves, (mask_of(state), expected.mask)), strict=True):
        np.testing.assert_array_equal(found, mask)
    for found, leaf in zip(*map(jax.tree.leaves, (params, expected.params)), strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-6)
    for leaf, mask in zip(*map(jax.tree.leaves, (params, mask_of(state))), strict=True):
        assert not np.any(np.asarray(leaf)[~np.asarray(mask)])


class Net(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(6, 5, rngs=rngs)
        self.b = nnx.Linear(5, 3, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.b(nnx.relu(self.a(x)))


@every_method
def test_a_flax_nnx_model(name):
    graph, params = nnx.split(Net(nnx.Rngs(0)), nnx.Param)
    params = filled(params, start())
    prunable = masks.prunable(params)
    assert prunable == ("a/kernel/value", "b/kernel/value")
    mask = first_mask(params)
    params, state = QUICK(partial(own, MADE[name](mask, prunable)))(params, SLOPES)
    assert_same(name, params, state)
    assert nnx.merge(graph, params)(jnp.ones((2, 6))).shape == (2, 3)


@partial(jax.tree_util.register_dataclass, data_fields=["bias", "kernel"], meta_fields=[])
@dataclasses.dataclass
class Layer:
    bias: jax.Array | None
    kernel: jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["a", "b"], meta_fields=["size"])
@dataclasses.dataclass
class Module:
    a: Layer
    b: Layer
    size: int = 6


@every_method
def test_a_dataclass(name):
    a, b = start().values()
    params = Module(Layer(a["bias"], a["kernel"]), Layer(None, b["kernel"]))
    assert masks.prunable(params) == PRUNABLE
    mask = first_mask(params)
    params, state = QUICK(partial(own, MADE[name](mask, PRUNABLE)))(params, SLOPES)
    assert_same(name, params, state)
    assert isinstance(mask_of(state), Module)


@every_method
def test_sharded_parameters(name, cpus):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,), devices=cpus[:2])
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("x",), ()))
    where = {"a": {"bias": whole, "kernel": rows}, "b": {"kernel": whole}}
    params = jax.device_put(start(), where)
    optimizer = MADE[name](first_mask(), PRUNABLE)
    run = QUICK(partial(own, optimizer))
    params, state = run(params, jax.device_put(SLOPES, whole))
    assert_same(name, params, state)
    assert len(params["a"]["kernel"].sharding.device_set) == 2
    # step by step, with a mask that is sharded like the parameters
    params, state = jax.device_put(start(), where), jax.device_put(optimizer.init(start()), whole)
    state = state._replace(mask=jax.device_put(state.mask, where))
    step = QUICK(optimizer.update)
    for i in range(CALLS):
        slopes = jax.tree.map(lambda leaf, i=i: leaf[i], SLOPES)
        updates, state = step(jax.device_put(slopes, where), state, params)
        params = optax.apply_updates(params, updates)
    assert_same(name, params, state)


@every_method
def test_accumulated_gradients(name):
    twice = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, 0), SLOPES)  # their mean is each
    optimizer = optax.MultiSteps(MADE[name](first_mask(), PRUNABLE), every_k_schedule=2)
    begin = masks.apply(first_mask(), start())
    params, state = QUICK(partial(own, optimizer))(begin, twice)
    assert_same(name, params, state)


@every_method
def test_clipping_in_front(name):
    clip = optax.clip_by_global_norm(2.0)
    clipped = QUICK(jax.vmap(lambda g: clip.update(g, clip.init(g))[0]))(SLOPES)
    optimizer = optax.chain(clip, MADE[name](first_mask(), PRUNABLE))
    params, state = QUICK(partial(own, optimizer))(start(), SLOPES)
    assert_same(name, params, state, clipped)


def test_a_move_is_asked_for_through_a_chain():
    params = masks.apply(first_mask(), start())
    gradient = jax.tree.map(lambda leaf: leaf[0], SLOPES)
    alone = rigl(first_mask(), PRUNABLE)
    chained = optax.chain(optax.identity(), alone)
    expected = alone.update(gradient, alone.init(params), params, move=True)[1].mask
    _, state = chained.update(gradient, chained.init(params), params, move=True)
    jax.tree.map(np.testing.assert_array_equal, mask_of(state), expected)
    assert np.any(expected["a"]["kernel"] != first_mask()["a"]["kernel"])


def test_a_mask_is_found_only_where_there_is_one():
    params, sparse = start(), rigl(first_mask(), PRUNABLE)
    for state, number in ((INNER.init(params), 0), ((sparse.init(params),) * 2, 2)):
        with pytest.raises(ValueError, match=f"contains {number} sparse optimisers, not one"):
            mask_of(state)
