"""Swaps and the tabu memory: exact densities, an order that stays whole, undoing, equal chances."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxtickets.search import annealing, space, swaps, tabu
from jaxtickets.search.energies import Energy
from jaxtickets.types import Feed, Units

KEY = jax.random.key(5)
SHAPES = {"fc1": (5, 7), "fc2": (7, 9), "out": (9, 4)}  # 35 + 63 + 36 = 134 weights
WIRING = (
    Units("fc1", 7, ("fc1",), (), (Feed("fc2", 1),)),
    Units("fc2", 9, ("fc2",), (), (Feed("out", 1),)),
)
# With chunks of 3 positions the loop over chunks runs several times, else there is no loop.
PLACES = [
    ("weights", "global", 3),
    ("weights", "layer", 3),
    ("units", "global", 3),
    ("units", "layer", swaps.CHUNK),
]
# Whole numbers, which are the same however little time the compiler takes.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def make_space(granularity, scope, shapes=SHAPES):
    params = {
        name: {"kernel": np.zeros(shape, "f"), "bias": np.zeros(shape[-1:], "f")}
        for name, shape in shapes.items()
    }
    if granularity == "units":
        return space.units(params, WIRING, scope)
    return space.weights(params, tuple(f"{name}/kernel" for name in shapes), scope)


def line(ones, scope="global", sizes=(12,)):
    """A space of segments of these sizes, and bits whose first `ones[i]` of segment i are on."""
    where = make_space("weights", scope, {f"l{i}": (1, size) for i, size in enumerate(sizes)})
    parts = [np.arange(size) < n for size, n in zip(sizes, ones, strict=True)]
    return where, np.concatenate(parts)


def held(where, bits):
    """The ones of each pool, by numpy."""
    return [bits[..., a : a + n].sum(-1) for a, n in zip(*swaps.pools(where), strict=True)]


def positions(where, drawn, most):
    """int32`[2, n]`: how often a draw takes each position as a one, and as a zero."""

    def body(counts, ones, zeros, live):
        live = live.astype(jnp.int32)
        return counts.at[0, ones].add(live).at[1, zeros].add(live)

    zero = jnp.zeros((2, where.size), jnp.int32)
    return swaps.over_positions(where, drawn, most, body, zero)


class Journey(NamedTuple):
    """Many draws of many sizes, one after another, and all that is said of each; numpy, stacked."""

    where: space.Space
    bits: np.ndarray  # where it started
    most: int
    asked: np.ndarray  # the sizes
    before: swaps.Walk
    drawn: swaps.Draw
    after: swaps.Walk
    back: swaps.Walk  # toggled again
    still: swaps.Walk  # toggled with `when` False
    positions: np.ndarray
    change: np.ndarray  # `layer_change`
    hash: np.ndarray  # `hash_after`
    hash_made_anew: np.ndarray


@cache
def journey(granularity, scope, chunk):
    where = make_space(granularity, scope)
    draw = np.random.default_rng(3)
    bits = np.concatenate([draw.permutation(n) < round(0.4 * n) for n in where.sizes])
    most = swaps.most(where, bits)
    sizes = np.tile([1, 2, 3, 4, 7, most, most + 100], 30)
    word = tabu.words(where)

    def body(walk, element):
        key, size = element
        drawn = swaps.draw(key, where, walk, size)
        after = swaps.toggle(where, walk, drawn, most)
        back = swaps.toggle(where, after, drawn, most)
        still = swaps.toggle(where, walk, drawn, most, when=size < 0)
        memory = tabu.recall(word, walk.bits, 2)
        said = (
            positions(where, drawn, most),
            swaps.layer_change(where, walk, drawn, most),
            swaps.hash_after(where, word, memory, walk, drawn, most),
            tabu.recall(word, after.bits, 2).hash,
        )
        return after, (walk, drawn, after, back, still, *said)

    @partial(jax.jit, compiler_options=QUICK)
    def travel(key, sizes):
        first_key, key = jax.random.split(key)
        first = swaps.init(first_key, where, jnp.asarray(bits))
        return lax.scan(body, first, (jax.random.split(key, len(sizes)), sizes))[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swaps, "CHUNK", chunk)
        seen = jax.tree.map(np.asarray, travel(KEY, jnp.asarray(sizes)))
    return Journey(where, bits, most, sizes, *seen)


@pytest.mark.parametrize("granularity", ["weights", "units"])
def test_bits_and_mask_of_a_space_are_inverse(granularity):
    where = make_space(granularity, "global")
    draw = np.random.default_rng(0)
    for _ in range(3):
        # no segment empty: where a layer has no unit, the next has no weights
        bits = np.concatenate([draw.permutation(n) < n // 2 for n in where.sizes])
        np.testing.assert_array_equal(where.bits(where.mask(jnp.asarray(bits))), bits)
        assert space.counts(where, jnp.asarray(bits)).tolist() == [n // 2 for n in where.sizes]


@pytest.mark.parametrize("place", PLACES)
def test_draws_of_any_size_keep_the_density_and_each_pools_count(place):
    trip = journey(*place)
    ones = held(trip.where, trip.bits)
    assert len(ones) == (1 if trip.where.scope == "global" else len(trip.where.sizes))
    for seen, n in zip(held(trip.where, trip.after.bits), ones, strict=True):
        assert (seen == n).all()
    np.testing.assert_array_equal(trip.after.ones, np.tile(ones, (len(trip.asked), 1)))


@pytest.mark.parametrize("place", PLACES)
def test_order_stays_a_permutation_with_the_ones_of_each_pool_first(place):
    trip = journey(*place)
    where, bits, order = trip.where, trip.after.bits, trip.after.order
    every = np.tile(np.arange(where.size), (len(order), 1))
    np.testing.assert_array_equal(np.sort(order), every)
    starts, sizes = swaps.pools(where)
    for start, size, n in zip(starts, sizes, held(where, trip.bits), strict=True):
        part = order[:, start : start + size]
        assert ((start <= part) & (part < start + size)).all()
        on = np.take_along_axis(bits, part, 1)
        assert on[:, :n].all() and not on[:, n:].any()


@pytest.mark.parametrize("place", PLACES)
def test_a_draw_of_k_moves_its_pools_share_of_k_or_all_that_the_pool_can(place):
    # the share of k is in proportion to min(ones, zeros), rounded, at least 1: all k of one pool
    trip = journey(*place)
    starts, sizes = swaps.pools(trip.where)
    ones = held(trip.where, trip.bits)
    room = {a: min(n, size - n) for a, size, n in zip(starts, sizes, ones, strict=True)}
    rooms = [room[int(a)] for a in trip.drawn.start]
    shares = [round(k * r / sum(room.values())) for k, r in zip(trip.asked, rooms, strict=True)]
    moved = [min(max(k, 1), r) for k, r in zip(shares, rooms, strict=True)]
    assert set(rooms) == set(room.values()) and max(moved) == max(rooms)
    np.testing.assert_array_equal(trip.drawn.size, moved)
    np.testing.assert_array_equal((trip.before.bits & ~trip.after.bits).sum(1), moved)
    np.testing.assert_array_equal((~trip.before.bits & trip.after.bits).sum(1), moved)


@pytest.mark.parametrize("place", PLACES)
def test_a_draws_positions_are_distinct_and_within_their_pool(place):
    trip = journey(*place)
    assert set(np.unique(trip.positions)) == {0, 1}
    np.testing.assert_array_equal(trip.positions.sum(2).T, [trip.drawn.size, trip.drawn.size])
    at = np.arange(trip.where.size)
    start, ones, zeros = (x.astype(int)[:, None] for x in trip.drawn[1:4])
    assert not trip.positions[:, 0][(at < start) | (at >= start + ones)].any()
    assert not trip.positions[:, 1][(at < start + ones) | (at >= start + ones + zeros)].any()


@pytest.mark.parametrize("place", PLACES)
def test_toggling_twice_restores_the_walk_bit_for_bit_and_when_false_does_nothing(place):
    trip = journey(*place)
    assert (trip.after.bits != trip.before.bits).any(1).all()
    for walk in (trip.back, trip.still):
        for got, expected in zip(walk, trip.before, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("place", PLACES)
def test_layer_change_is_the_counted_change(place):
    trip = journey(*place)
    segments = np.repeat(np.arange(len(trip.where.sizes)), trip.where.sizes)
    moved = trip.after.bits.astype(int) - trip.before.bits
    counted = np.stack([moved[:, segments == s].sum(1) for s in np.unique(segments)], 1)
    np.testing.assert_array_equal(trip.change, counted)
    assert np.any(counted) == (trip.where.scope == "global")


@pytest.mark.parametrize("place", PLACES)
def test_hash_after_is_the_hash_made_anew_of_the_mask_it_leads_to(place):
    trip = journey(*place)
    np.testing.assert_array_equal(trip.hash, trip.hash_made_anew)
    # as many hashes as there are masks
    assert len(np.unique(trip.hash, axis=0)) == len(np.unique(trip.after.bits, axis=0)) > 20


def test_progressions_in_a_large_space_do_not_overflow():
    # 3,001,374 bits: products and sums stay below 2^32 only because chunks are narrowed to
    # 2^32 // 3,001,374 = 1,431 positions and remainders are taken before sums; what is expected
    # are Python's unbounded integers
    n, most = 3_001_374, 1500
    where = make_space("weights", "global", {"fc1": (2, n // 2)})
    ones, zeros = n - 1500, 1500
    one, one_stride, zero, zero_stride = ones - 9, ones - 1, 7, 1499
    numbers = (0, ones, zeros, one, one_stride, zero, zero_stride)
    drawn = swaps.Draw(jnp.int32(most), *(jnp.uint32(x) for x in numbers))
    width = 2**32 // n

    def body(carry, taken, blank, live):
        i, buffer = carry
        rows = jnp.where(live, jnp.stack([taken, blank]), 0)
        return i + width, lax.dynamic_update_slice(buffer, rows, (0, i))

    @jax.jit
    def collect(drawn):
        buffer = jnp.zeros((2, 2 * width), jnp.uint32)
        return swaps.over_positions(where, drawn, most, body, (0, buffer))[1]

    got = np.asarray(collect(drawn))[:, :most]
    assert got[0].tolist() == [(one + j * one_stride) % ones for j in range(most)]
    assert got[1].tolist() == [ones + (zero + j * zero_stride) % zeros for j in range(most)]


def test_positions_are_those_of_the_progressions_without_overflow():
    # 3,000,000 bits: products stay below 2^32 for 1,431 positions alone; 4,000 take three rounds
    n, count = 3_000_000, 4000
    where = make_space("weights", "global", {"fc1": (2, n // 2)})
    ones, zeros = n - 5001, 5001
    one, one_stride, zero, zero_stride = ones - 9, ones - 1, 7, 4999
    numbers = (0, ones, zeros, one, one_stride, zero, zero_stride)
    drawn = swaps.Draw(jnp.int32(1), *(jnp.uint32(x) for x in numbers))
    at = swaps.positions(where, drawn, count)
    assert at[0].tolist() == [(one + j * one_stride) % ones for j in range(count)]
    assert at[1].tolist() == [ones + (zero + j * zero_stride) % zeros for j in range(count)]


def test_each_one_and_each_zero_is_equally_likely():
    # 5 ones and 7 zeros: a draw of k takes each one with probability k / 5, each zero with k / 7
    where, bits = line([5])
    draws = 20_000

    @jax.jit
    def share_of_draws(key, size):
        walk = swaps.init(key, where, jnp.asarray(bits))

        def moved(key):
            drawn = swaps.draw(key, where, walk, size)
            return swaps.toggle(where, walk, drawn, 5).bits != walk.bits

        return jax.vmap(moved)(jax.random.split(key, draws)).mean(0)

    for size in (1, 2, 4):
        share = share_of_draws(jax.random.key(size), size)
        expected = np.where(bits, size / 5, size / 7)
        error = np.sqrt(expected * (1 - expected) / draws)  # one standard error
        assert (abs(share - expected) < 4.5 * error).all()


def test_each_pool_that_can_swap_is_equally_likely_and_swaps_its_share():
    # min(ones, zeros) is 6 of (6, 18), 2 of (7, 2), 0 of (4, 0): the first two are as likely;
    # of k = 4 the shares are 4 * 6/8 = 3 and 4 * 2/8 = 1
    where, bits = line([6, 7, 4], "layer", (24, 9, 4))

    @jax.jit
    def draw(keys):
        walk = swaps.init(KEY, where, jnp.asarray(bits))
        return jax.vmap(lambda key: swaps.draw(key, where, walk, 4))(keys)

    drawn = draw(jax.random.split(jax.random.key(2), 9000))
    count = np.bincount(drawn.start, minlength=34)
    assert count[33] == 0 and count[0] + count[24] == 9000
    assert abs(count[0] / 9000 - 1 / 2) < 4.5 * np.sqrt(1 / 4 / 9000)
    np.testing.assert_array_equal(drawn.size, np.where(drawn.start == 0, 3, 1))


def test_with_nothing_to_swap_a_draw_does_nothing():
    where, full = line([12])

    @jax.jit
    def swap(bits):
        walk = swaps.init(KEY, where, bits)
        drawn = swaps.draw(KEY, where, walk, 3)
        return drawn.size, swaps.toggle(where, walk, drawn, 3).bits

    for bits in (full, ~full):
        size, after = swap(bits)
        assert size == 0
        np.testing.assert_array_equal(after, bits)


def test_most_is_the_room_of_all_pools_and_the_largest_of_any_row():
    # pools (2 of 8), (5 of 6), (4 of 4): rooms 2 + 1 + 0; as one pool 11 of 18: 7
    where, bits = line([2, 5, 4], "layer", (8, 6, 4))
    assert swaps.most(where, bits) == 3
    assert swaps.most(where._replace(scope="global"), bits) == 7
    # (3 of 8), (3 of 6), (1 of 4): 3 + 3 + 1
    other = line([3, 3, 1], "layer", (8, 6, 4))[1]
    assert swaps.most(where, np.stack([bits, other, bits])) == 7


@pytest.mark.parametrize("n", [1, 6, 134, 5000, 300_000])
def test_strides_are_coprime_with_every_count(n):
    strides = swaps.coprimes(n)
    assert strides.shape == (swaps.STRIDES,) and len(set(strides.tolist())) == swaps.STRIDES
    counts = np.arange(1, n + 1)
    if n > 5000:  # too many to try each: the largest, and some
        counts = np.r_[counts[-50:], np.random.default_rng(0).integers(1, n, 500)]
    assert (np.gcd.outer(strides.astype(int), counts) == 1).all()


# --- tabu ----------------------------------------------------------------------------------------


def test_memory_knows_the_last_masks_and_forgets_older_ones():
    where, bits = line([6])
    word = tabu.words(where)
    rolled = jnp.asarray([np.roll(bits, i) for i in range(6)])
    hashes = jax.vmap(lambda b: tabu.recall(word, b, 0).hash)(rolled)
    known = jax.jit(lambda memory: jax.vmap(lambda h: tabu.known(memory, h))(hashes))
    remember = jax.jit(tabu.remember)
    memory = tabu.recall(word, rolled[0], 3)
    assert known(memory).tolist() == [True, *[False] * 5]
    for i in range(1, 6):
        memory = remember(memory, hashes[i], False)  # a move that is refused
        assert not known(memory)[i]
        memory = remember(memory, hashes[i], True)
        np.testing.assert_array_equal(memory.hash, hashes[i])
        assert known(memory).tolist() == [i - 3 < j <= i for j in range(6)]


def test_a_search_with_tabu_does_not_revisit_its_last_masks():
    # 6 bits, 3 on: 20 masks, each with 9 neighbours by one swap, so that four are easily avoided
    where, bits = line([3], sizes=(6,))
    energy = Energy(lambda key, mask: jnp.float32(0), fresh=False)
    kernel = annealing.build(swaps.moves(where, 3, tabu=4), where.mask, energy, annealing.Rules())
    ticks = annealing.step_plans(400, lambda t: t * 0.0 + 1, lambda t: 1 + t // 4 % 3)

    def body(state, tick):
        state, info = kernel.step(jax.random.fold_in(KEY, tick.step), tick, state)
        return state, (state.walk.bits, info.accepted)

    def search():
        return lax.scan(body, kernel.init(KEY, jnp.asarray(bits)), ticks)[1]

    visited, accepted = jax.tree.map(np.asarray, jax.jit(search, compiler_options=QUICK)())
    # the start, 0b111, then wherever it moved to, each mask as a number
    path = [7, *(visited[accepted] @ (1 << np.arange(6))).tolist()]
    assert len(path) > 200

    def met_again(span):
        return any(path[i] in path[max(0, i - span) : i] for i in range(1, len(path)))

    assert not met_again(4)
    assert met_again(5)  # it would have met them, and the memory is no longer than asked for
