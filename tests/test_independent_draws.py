"""Masks drawn anew: all alike, exact counts, floors, and wherever the walk stood."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.search import independent_draws, space

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
PARAMS = {"a": {"kernel": np.zeros((2, 2), "f")}, "b": {"kernel": np.zeros((1, 3), "f")}}
KEYS = jax.random.split(jax.random.key(0), 7_000)


def drawn(scope, bits, floor=None):
    where = space.weights(PARAMS, ("a/kernel", "b/kernel"), scope)
    moves = independent_draws.moves(where, 3, floor)

    @partial(jax.jit, compiler_options=QUICK)
    @jax.vmap
    def propose(key):
        return moves.propose(key, jnp.int32(1), moves.init(key, jnp.asarray(bits)))

    return moves, jax.tree.map(np.asarray, propose(KEYS))


@pytest.mark.parametrize(
    # 18 masks of 2 of 4 and 1 of 3 bits, 35 of 3 of 7; chi square's 99.99 % quantiles
    ("scope", "masks", "quantile"),
    [("layer", 18, 46.2), ("global", 35, 73.5)],
)
@pytest.mark.parametrize("bits", [[1, 1, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0, 1]])
def test_all_masks_of_the_counts_are_as_likely_from_anywhere(scope, masks, quantile, bits):
    bits = np.array(bits, bool)
    _, found = drawn(scope, bits)
    ends, seen = np.unique(found.walk.bits, axis=0, return_counts=True)
    assert len(ends) == masks and (ends.sum(1) == 3).all()
    assert scope == "global" or (ends[:, :4].sum(1) == 2).all()
    mean = len(KEYS) / masks
    assert ((seen - mean) ** 2 / mean).sum() < quantile
    assert found.allowed.all() and not found.log_ratio.any()
    np.testing.assert_array_equal(found.size, (bits & ~found.walk.bits).sum(1))


def test_a_mask_below_the_floor_is_not_allowed_and_leaves_no_trace():
    bits = np.array([1, 1, 0, 0, 1, 0, 0], bool)
    moves, found = drawn("global", bits, floor=(1, 1))
    below = (found.walk.bits[:, :4].sum(1) < 1) | (found.walk.bits[:, 4:].sum(1) < 1)
    assert 0 < below.sum() < len(KEYS)
    np.testing.assert_array_equal(found.allowed, ~below)
    one = jax.tree.map(lambda leaf: leaf[0], found)
    np.testing.assert_array_equal(moves.settle(one, jnp.bool_(False)).bits, bits)
    np.testing.assert_array_equal(moves.settle(one, jnp.bool_(True)).bits, one.walk.bits)
