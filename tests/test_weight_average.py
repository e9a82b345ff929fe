"""Moving averages of weights stand in for them: followed by hand, masked, and resumable."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_training as net

from jaxtickets import masks, optimizers, training, weight_average
from jaxtickets.dynamic import rigl
from jaxtickets.dynamic.static import masked
from jaxtickets.types import Split

DECAY = 0.9
RECIPE = net.RECIPE._replace(average=DECAY, every=5)


def fresh():
    optimizer = masked(RECIPE.optimizer(0.01), net.mask_of(0))
    return training.watch(training.init(*net.start(), optimizer, average=DECAY))


@cache
def chunk(steps):
    recipe = RECIPE._replace(every=steps)
    return jax.jit(
        lambda watched: training.train_chunk(recipe, net.KEY, 0.01, watched, net.DATA, 1)
    )


def test_the_average_follows_by_its_formula_and_gradients_are_those_of_what_is_trained():
    # loss w^2 / 2 at rate 0.5 halves w: 8, 4, 2, 1. With decay 0.2, d = min(0.2, (1 + t) /
    # (10 + t)) is 0.1, 2/11 and 0.2: 0.8 + 0.9 * 4 = 4.4; 2/11 * 4.4 + 9/11 * 2 = 2.436364; then
    # 0.2 * 2.436364 + 0.8 * 1 = 1.287273
    def loss(params, stats, batch, key):
        return params["w"] ** 2 / 2, ({"seen": stats["seen"] + 2, "n": stats["n"] + 1}, {})

    optimizer = masked(optimizers.optimizer("sgd", 0.5), {"w": jnp.bool_(True)})
    stats = {"seen": jnp.float32(0), "n": jnp.int32(0)}
    state = training.init({"w": jnp.float32(8)}, stats, optimizer, average=0.2)
    batch, averages, seen = Split(jnp.zeros((1, 1)), jnp.zeros(1, int)), [], []
    for _ in range(3):
        state, _ = training.step(loss, optimizer, net.KEY, state, batch)
        averages.append(state.params["w"])
        seen.append(state.stats["seen"])
    np.testing.assert_allclose(averages, [4.4, 2.436364, 1.287273], rtol=1e-6)
    # statistics 2, 4, 6 in the same way; a count is not averaged
    np.testing.assert_allclose(seen, [1.8, 3.6, 5.52], rtol=1e-6)
    assert state.stats["n"] == 3
    assert weight_average.trained(state)[0] == {"w": 1}


def test_a_training_with_an_average_takes_the_same_steps_and_evaluates_the_average():
    watched, seen = chunk(20)(fresh())
    plain = net.chunk(20)(net.KEY, 0.01, training.watch(net.fresh_state()))
    state, (own, plain_seen) = watched.state, plain
    net.same(weight_average.trained(state), (own.state.params, own.state.stats))
    np.testing.assert_array_equal(seen["train_loss"], plain_seen["train_loss"])
    assert net.differ(state.params, own.state.params) and net.differ(state.stats, own.state.stats)
    # the evaluation and the early stop are the average's
    found = training.evaluate(net.MODEL, net.prepare, state.params, state.stats, net.VALIDATION)
    np.testing.assert_allclose(seen["loss"][0], found["loss"], rtol=1e-6)
    net.same((watched.params, watched.stats), (state.params, state.stats))
    net.same(state.params, masks.apply(net.mask_of(0), state.params))


def test_an_average_is_cut_and_resumed_bit_for_bit():
    whole, _ = chunk(20)(fresh())
    parts = fresh()
    for length in (10, 10):
        parts, _ = chunk(length)(parts)
    net.same(parts.state, whole.state)


def test_pruned_weights_of_an_average_are_their_fill():
    params, stats = net.start()
    fill = jax.tree.map(lambda p: jnp.full_like(p, 0.1), params)
    mask = net.mask_of(1)
    watched, _ = training.train(RECIPE, net.KEY, 0.01, params, stats, mask, net.DATA, 5, fill=fill)
    for held in (watched.state.params, watched.state.trained.params, watched.params):
        net.same(held, masks.apply(mask, held, fill))


def test_a_moving_mask_holds_for_the_average():
    params, stats = net.start()
    mask = masks.random(jax.random.key(3), params, net.PRUNABLE, 17)
    steps, every = 8, 2

    def sparsify(inner, mask, fill, hyper):
        return rigl.rigl(inner, mask, net.PRUNABLE, moves, every)

    counts = {path: int(count) for path, count in masks.counts(mask, net.PRUNABLE).items()}
    moves = rigl.plan(steps // every, counts, counts, fraction=0.5)
    recipe = RECIPE._replace(every=steps, sparsify=sparsify, moves=training.Moves(every, images=12))
    watched, _ = jax.jit(
        lambda: training.train(recipe, net.KEY, 0.01, params, stats, mask, net.DATA, steps)
    )()
    state = watched.state
    assert net.differ(state.mask, mask)
    for held in (state.params, state.trained.params):
        net.same(held, masks.apply(state.mask, held))


def test_what_does_not_average_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^decay 1 of the weights' average: must be .* below 1$"):
        training.init(*net.start(), masked(RECIPE.optimizer(0.01), net.mask_of(0)), average=1)
    own = RECIPE._replace(steps=lambda *args: None)
    with pytest.raises(ValueError, match="do not average"):
        training.take_steps(own, 0.01, None, net.KEY, fresh().state, (), None)
