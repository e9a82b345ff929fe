"""Rewired masks: who goes and who comes, exact counts, and what training shows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import losses, masks, training
from jaxtickets.dynamic.static import masked
from jaxtickets.search import space, trained_swaps
from jaxtickets.search.trained_swaps import Learnt
from jaxtickets.types import Model, Split

KEY = jax.random.key(0)
PARAMS = {"a": {"kernel": jnp.zeros((6, 4))}, "b": {"kernel": jnp.zeros((4, 2))}}
PRUNABLE = ("a/kernel", "b/kernel")
WORTH, WANT = np.random.default_rng(1).permuted(np.arange(64.0).reshape(2, 32), axis=1)
BITS = np.arange(32) % 2 == 0


def fixed(key, mask):
    """Nothing is learnt: the same worth and want wherever the walk stands."""
    kept = masks.flatten(mask, PRUNABLE)
    energy = jnp.sum(jnp.where(kept, WORTH, 0.0), dtype=jnp.float32)
    return Learnt(energy, jnp.float32(WORTH), jnp.float32(WANT))


def proposed(scope, size, floor=0, bits=BITS):
    where = space.weights(PARAMS, PRUNABLE, scope)
    moves = trained_swaps.moves(where, 32, fixed, floor)
    walk = moves.init(KEY, jnp.asarray(bits))
    return moves, walk, moves.propose(KEY, jnp.int32(size), walk)


@pytest.mark.parametrize("size", [0, 1, 5, 16, 20])
def test_the_least_worth_go_and_the_most_wanted_come(size):
    _, _, proposal = proposed("global", size)
    new, swapped = np.asarray(proposal.walk.bits), min(size, 16)
    gone, come = BITS & ~new, new & ~BITS
    assert gone.sum() == come.sum() == swapped == int(proposal.size)
    if swapped:
        stay, out = BITS & new, ~BITS & ~new
        assert swapped == 16 or WORTH[gone].max() < WORTH[stay].min()
        assert swapped == 16 or WANT[come].min() > WANT[out].max()


@pytest.mark.parametrize("size", [1, 4, 9, 16])
def test_within_layers_each_keeps_its_count_and_swaps_its_share(size):
    bits = np.arange(32) % 3 == 0
    _, _, proposal = proposed("layer", size, bits=bits)
    new = np.asarray(proposal.walk.bits)
    for part in (slice(0, 24), slice(24, 32)):
        assert new[part].sum() == bits[part].sum()
        share = min(round(size * bits[part].sum() / bits.sum()), bits[part].sum())
        gone = bits[part] & ~new[part]
        assert gone.sum() == share
        if 0 < share < bits[part].sum():
            assert WORTH[part][gone].max() < WORTH[part][bits[part] & new[part]].min()


def test_no_layer_falls_below_the_floor():
    weak = np.where(np.arange(32) < 24, WORTH + 100, WORTH)  # all of the second layer goes first
    where = space.weights(PARAMS, PRUNABLE, "global")

    def probe(key, mask):
        return fixed(key, mask)._replace(drop_score=jnp.float32(weak), grow_score=jnp.float32(weak))

    for floor in (0, 3):
        moves = trained_swaps.moves(where, 32, probe, floor)
        walk = moves.init(KEY, jnp.asarray(BITS))
        new = np.asarray(moves.propose(KEY, jnp.int32(8), walk).walk.bits)
        assert new.sum() == BITS.sum() and new[24:].sum() == floor


def test_floors_are_kept_whatever_the_size_and_the_count_is_exact():
    # a floor of 6 holds 12 of the 16 ones, so that no more than 4 can move
    where = space.weights(PARAMS, PRUNABLE, "global")
    moves = trained_swaps.moves(where, 32, fixed, floor=6)
    proposal = jax.jit(lambda: moves.propose(KEY, jnp.int32(9), moves.init(KEY, BITS)))()
    new = np.asarray(proposal.walk.bits)
    assert new.sum() == BITS.sum() and int(proposal.size) == 4
    assert new[:24].sum() >= 6 and new[24:].sum() >= 6


def test_within_layers_the_size_is_what_is_moved():
    bits = np.arange(32) % 3 == 0  # 8 and 3 ones: a share of 1 is one, none
    _, _, proposal = proposed("layer", 1, bits=bits)
    assert int(proposal.size) == (bits & ~np.asarray(proposal.walk.bits)).sum() == 1


def test_what_is_not_accepted_leaves_no_trace():
    moves, walk, proposal = proposed("global", 5)
    back, there = moves.settle(proposal, jnp.bool_(False)), moves.settle(proposal, jnp.bool_(True))
    jax.tree.map(np.testing.assert_array_equal, back, walk)
    jax.tree.map(np.testing.assert_array_equal, there, proposal.walk)
    assert float(there.learnt.energy) != float(walk.learnt.energy)


# --- what training shows -------------------------------------------------------------------------


def bench():
    weights = jax.random.normal(KEY, (6, 4)), jax.random.normal(jax.random.key(1), (4, 2))
    params = {"a": {"kernel": weights[0]}, "b": {"kernel": weights[1]}}

    def apply(params, stats, images, key=None, train=False):
        return jnp.tanh(images @ params["a"]["kernel"]) @ params["b"]["kernel"], stats

    def batches(key):
        images = jax.random.normal(key, (3, 5, 6))
        return Split(images, jnp.int32(images.sum(-1) > 0))

    model = Model(lambda key: (params, {}), apply)
    loss, optimizer = losses.classification(model, lambda images: images), optax.sgd(0.3)
    held = batches(jax.random.key(9))
    images, labels = held.images.reshape(15, 6), held.labels.ravel()
    measure = losses.cross_entropy
    probe = trained_swaps.trained(
        model, loss, optimizer, params, {}, batches, images, labels, measure, PRUNABLE
    )

    def after(mask, key):
        """The weights after the steps that the probe takes."""
        order, noise = jax.random.split(key)
        sparse = masked(optimizer, mask)
        state = training.init(params, {}, sparse)
        return training.advance(loss, sparse, noise, state, batches(order))[0].params

    def energy(params):
        return float(measure(apply(params, {}, images)[0], labels))

    mask = masks.unflatten(jnp.asarray(BITS), params, PRUNABLE)
    return probe, after, energy, mask


def test_a_probe_tells_loss_weights_and_slopes_after_its_training():
    probe, after, energy, mask = bench()
    learnt, end = probe(KEY, mask), after(mask, KEY)
    assert float(learnt.energy) == pytest.approx(energy(end), rel=1e-5)
    flat = np.asarray(masks.flatten(end, PRUNABLE))
    np.testing.assert_allclose(learnt.drop_score, np.abs(flat), rtol=1e-5)
    assert (np.asarray(learnt.drop_score)[~BITS] == 0).all() and (flat[BITS] != 0).all()
    for i in (1, 7, 25):  # weights that are off, by central differences
        step = np.zeros(32, "f")
        step[i] = 1e-2
        moved = [
            energy(masks.put(end, PRUNABLE, [w[:24].reshape(6, 4), w[24:].reshape(4, 2)]))
            for w in (flat + step, flat - step)
        ]
        assert float(learnt.grow_score[i]) == pytest.approx(
            abs(moved[0] - moved[1]) / 2e-2, abs=2e-3
        )


def test_every_proposal_sees_other_batches():
    probe, _, _, mask = bench()
    assert float(probe(KEY, mask).energy) != float(probe(jax.random.key(5), mask).energy)
