"""N:M patterns: exact counts in every group, moves within groups, and Boltzmann's distribution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.search import annealing, patterns, space
from jaxtickets.search.energies import Energy

KEY = jax.random.key(8)
SHAPES = {"conv": (2, 2, 3, 5), "fc": (8, 6), "out": (5, 3)}  # 12, 8 and 5 inputs
PARAMS = {name: {"kernel": np.zeros(shape, "f")} for name, shape in SHAPES.items()}
# what is compiled without much optimisation is compiled sooner
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def of(group, params=PARAMS):
    return space.weights(params, tuple(f"{n}/kernel" for n in params), space.PATTERN, group)


def by_hand(where, bits):
    """Ones of each group, group by group of each output of each leaf, and how many slots it has."""
    found, members = [], []
    for shape, part in zip(where.shapes, np.split(np.asarray(bits), where.starts[1:]), strict=True):
        table = part.reshape(-1, shape[-1])
        for output in table.T:
            for at in range(0, len(output), where.group):
                found.append(int(output[at : at + where.group].sum()))
                members.append(len(output[at : at + where.group]))
    return np.array(found), np.array(members)


@pytest.mark.parametrize(("n", "group"), [(2, 4), (1, 4), (1, 2), (3, 5)])
def test_the_highest_of_each_group_are_chosen(n, group):
    where = of(group)
    scores = np.random.default_rng(n).permutation(where.size).astype("f")
    bits = space.choose(where, jnp.asarray(scores), int(space.pattern_totals(where)[n]))
    held, members = by_hand(where, bits)
    np.testing.assert_array_equal(held, np.ceil(n * members / group))
    kept, cut = np.where(bits, scores, np.inf), np.where(bits, -np.inf, scores)
    parts = zip(where.shapes, *(np.split(a, where.starts[1:]) for a in (kept, cut)), strict=True)
    for shape, *both in parts:
        for worst, best in zip(*(part.reshape(-1, shape[-1]).T for part in both), strict=True):
            for at in range(0, len(worst), group):
                assert worst[at : at + group].min() > best[at : at + group].max()


def test_a_mapping_of_counts_is_its_total():
    where, scores = of(4), jnp.arange(123.0)
    by_leaf = {"conv/kernel": 30, "fc/kernel": 24, "out/kernel": 8}
    np.testing.assert_array_equal(
        space.choose(where, scores, by_leaf), space.choose(where, scores, 62)
    )


def test_slots_are_the_groups_of_the_leaves_and_nothing_else():
    where = of(4)
    assert patterns.count(where) == 3 * 5 + 2 * 6 + 2 * 3
    found = np.asarray(patterns.slots(where, jnp.arange(33)))
    inside = found[found < where.size]
    np.testing.assert_array_equal(np.sort(inside), np.arange(where.size))
    starts = where.starts
    np.testing.assert_array_equal(found[0], [0, 5, 10, 15])  # conv: inputs 0 to 3 of output 0
    np.testing.assert_array_equal(found[15 + 7], starts[1] + np.array([25, 31, 37, 43]))  # fc
    np.testing.assert_array_equal(found[-1], [starts[2] + 14, 123, 123, 123])  # out's fifth input


@pytest.mark.parametrize("size", [1, 7, 33])
def test_moves_switch_as_many_groups_as_asked_and_are_undone(size):
    where = of(4)
    moves = patterns.moves(where, 33)
    bits = space.choose(where, jax.random.uniform(KEY, (where.size,)), 62)

    @partial(jax.jit, compiler_options=QUICK)
    def both(key):
        proposal = moves.propose(key, jnp.int32(size), moves.init(key, bits))
        ends = [moves.settle(proposal, jnp.bool_(accepted)).bits for accepted in (True, False)]
        return proposal.walk.bits, proposal.size, *ends

    there, moved, taken, back = jax.vmap(both)(jax.random.split(KEY, 50))
    np.testing.assert_array_equal(taken, there)
    np.testing.assert_array_equal(back, np.tile(bits, (50, 1)))
    # the three groups of one input can't move
    assert (moved <= size).all() and moved.max() == min(size, 30)
    np.testing.assert_array_equal((there != bits[None]).sum(1), 2 * moved)
    for one in there[:5]:
        np.testing.assert_array_equal(by_hand(where, one)[0], by_hand(where, bits)[0])


def test_every_pair_of_every_group_is_as_likely():
    where = of(3, {"l": {"kernel": np.zeros((6, 2), "f")}})  # four groups of 3, one of each on
    moves = patterns.moves(where, 1)
    bits = space.choose(where, jnp.arange(12.0), 4)

    @partial(jax.jit, compiler_options=QUICK)
    def there(key):
        return moves.propose(key, jnp.int32(1), moves.init(key, bits)).walk.bits

    ends = np.asarray(jax.vmap(there)(jax.random.split(KEY, 8_000)))
    _, seen = np.unique(ends, axis=0, return_counts=True)
    assert len(seen) == 8  # four groups, two other places each
    assert ((seen - 1000) ** 2 / 1000).sum() < 29.9  # the 99.99 % quantile, 7 degrees of freedom


def test_a_walk_meets_masks_as_often_as_boltzmann_says():
    where = of(2, {"l": {"kernel": np.zeros((4, 2), "f")}})  # four groups of 2: sixteen masks
    levels = np.random.default_rng(3).uniform(0, 1, 16).astype("f")

    def level(bits):
        first = bits.reshape(2, 2, 2)[:, 0, :].reshape(4)
        return jnp.asarray(levels)[jnp.sum(first * jnp.asarray([8, 4, 2, 1]))]

    energy = Energy(lambda key, mask: level(where.bits(mask)), fresh=False)
    kernel = annealing.build(patterns.moves(where, 4), where.mask, energy, annealing.Rules())
    plan = annealing.step_plans(40, lambda t: 0.0 * t + 0.4, lambda t: 1.0 + t % 2)

    @partial(jax.jit, compiler_options=QUICK)
    def end(key):
        start = space.choose(where, jax.random.uniform(key, (8,)), 4)
        return annealing.run(kernel, key, kernel.init(key, start), plan)[0].walk.bits

    ends = np.asarray(jax.vmap(end)(jax.random.split(KEY, 8_000)))
    number = ends.reshape(-1, 2, 2, 2)[:, :, 0, :].reshape(-1, 4) @ [8, 4, 2, 1]
    share = np.exp(-levels / 0.4)
    expected = 8_000 * share / share.sum()
    seen = np.bincount(number, minlength=16)
    assert ((seen - expected) ** 2 / expected).sum() < 44.3  # 99.99 %, 15 degrees of freedom
    assert ((seen - 500) ** 2 / 500).sum() > 200  # as if all were alike


def test_units_have_no_pattern():
    with pytest.raises(ValueError, match="pattern"):
        space.units(PARAMS, (), space.PATTERN)


def test_totals_are_what_is_chosen_and_scores_that_are_not_numbers_come_last():
    where = of(4)
    scores = jax.random.uniform(KEY, (where.size,))
    for n, total in enumerate(space.pattern_totals(where)):
        assert space.choose(where, scores, int(total)).sum() == total
        chosen = jax.jit(lambda s, t=int(total): space.choose(where, s, t))(scores * jnp.nan)
        assert chosen.sum() == total, n
    with pytest.raises(ValueError, match="NaN among the scores of conv"):
        space.choose(where, scores * jnp.nan, 62)
    with pytest.raises(ValueError, match="group=0: must be from 2"):
        of(0)
