"""The contract of sparse optimisers: what every one of them promises, in any loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import losses, masks, training
from jaxtickets.dynamic import granet, static
from jaxtickets.types import Model, Split

KEY = jax.random.key(0)
PRUNABLE = ("a/kernel", "b/kernel")
KEEP, EVERY = 30, 3
ROUNDS = granet.plan(4, KEEP, 12)
METHODS = {
    "masked": static.masked,
    "granet": lambda inner, mask: granet.granet(inner, mask, PRUNABLE, ROUNDS, EVERY),
}
COUNTS = {
    "masked": [KEEP] * 4,
    "granet": ROUNDS.ones.tolist(),
}
"""Kept weights after each round of `EVERY` training steps and a move."""
INNERS = {
    "sgd": optax.sgd(0.1),
    "adam": optax.adam(0.01),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9)),
}


def start():
    first, second = jax.random.split(KEY)
    params = {
        "a": {"bias": jnp.ones(5), "kernel": jax.random.normal(first, (6, 5))},
        "b": {"kernel": jax.random.normal(second, (5, 3))},
    }
    return params, masks.random(KEY, params, PRUNABLE, KEEP)


def apply(params, stats, images, key=None, train=False):
    hidden = images.reshape(len(images), -1) @ params["a"]["kernel"] + params["a"]["bias"][None]
    return jax.nn.relu(hidden) @ params["b"]["kernel"], stats


LOSS = losses.classification(Model(lambda key: (start()[0], {}), apply), lambda images: images)
CALLS = 4 * (EVERY + 1)
BATCHES = Split(jax.random.normal(KEY, (CALLS, 8, 6)), jax.random.randint(KEY, (CALLS, 8), 0, 3))


def own_loop(optimizer, params):
    """A plain optax loop over the batches; all parameters and masks on its way."""

    def body(carry, batch):
        params, state = carry
        gradient = jax.grad(lambda p: LOSS(p, {}, batch, KEY)[0])(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state.mask)

    return jax.lax.scan(body, (params, optimizer.init(params)), BATCHES)[1]


@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("name", METHODS)
def test_masks_in_a_plain_optax_loop_are_those_of_training_bit_for_bit(name, inner):
    params, mask = start()
    params = masks.apply(mask, params)
    optimizer = METHODS[name](INNERS[inner], mask)
    seen, kept = jax.jit(partial(own_loop, optimizer))(params)
    state = training.init(params, {}, optimizer)
    ours = jax.jit(partial(training.advance, LOSS, optimizer))
    state, _ = ours(KEY, state, BATCHES)
    params, mask = jax.tree.map(lambda leaf: leaf[-1], (seen, kept))
    jax.tree.map(np.testing.assert_array_equal, mask, state.mask)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    jax.tree.map(close, params, state.params)  # as two programs round


@pytest.mark.parametrize("name", METHODS)
def test_after_every_update_the_parameters_obey_a_mask_of_the_right_count(name):
    params, mask = start()
    optimizer = METHODS[name](INNERS["adam"], mask)
    seen, kept = jax.jit(partial(own_loop, optimizer))(params)  # dense at first
    for leaf, keep in zip(jax.tree.leaves(seen), jax.tree.leaves(kept), strict=True):
        assert not np.any(np.asarray(leaf)[~np.asarray(keep)])
    counts = jax.vmap(lambda mask: masks.count(mask, PRUNABLE))(kept)
    assert counts.tolist()[EVERY :: EVERY + 1] == COUNTS[name]
    assert np.all(kept["a"]["bias"])


@pytest.mark.parametrize("name", METHODS)
def test_masks_are_a_batch_axis(name):
    params, _ = start()
    many = jax.vmap(lambda key: masks.random(key, params, PRUNABLE, KEEP))(jax.random.split(KEY, 3))

    def run(mask):
        return own_loop(METHODS[name](INNERS["sgd"], mask), masks.apply(mask, params))[1]

    together = jax.jit(jax.vmap(run))(many)
    for i in range(3):
        alone = jax.jit(run)(jax.tree.map(lambda leaf, i=i: leaf[i], many))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone)


@pytest.mark.parametrize("name", METHODS)
def test_an_update_without_parameters_is_refused_in_one_line(name):
    params, mask = start()
    optimizer = METHODS[name](INNERS["sgd"], mask)
    with pytest.raises(ValueError, match=r"needs the parameters$"):
        optimizer.update(params, optimizer.init(params))


def test_moves_that_the_loop_asks_for_are_those_that_calls_are_counted_for():
    params, mask = start()
    optimizer = METHODS["granet"](INNERS["adam"], mask)
    state = training.init(params, {}, optimizer)
    counted, _ = training.advance(LOSS, optimizer, KEY, state, BATCHES)
    for i in range(CALLS):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], BATCHES)
        move = i % (EVERY + 1) == EVERY
        state, _ = training.step(LOSS, optimizer, KEY, state, one, move=move)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), counted.params, state.params
    )
    jax.tree.map(np.testing.assert_array_equal, counted.mask, state.mask)


def test_a_static_mask_refuses_to_move():
    params, mask = start()
    optimizer = static.masked(INNERS["sgd"], mask)
    with pytest.raises(ValueError, match=r"changes in no move"):
        optimizer.update(params, optimizer.init(params), params, move=True)
