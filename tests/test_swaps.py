"""Swaps and the tabu memory: exact densities, an order that stays whole, undoing, equal chances."""

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
PLACES = [(g, scope) for g in ("weights", "units") for scope in space.SCOPES]


def params_of(shapes):
    return {
        name: {"kernel": np.zeros(shape, "f"), "bias": np.zeros(shape[-1:], "f")}
        for name, shape in shapes.items()
    }


def make_space(granularity, scope, shapes=SHAPES):
    params = params_of(shapes)
    if granularity == "units":
        return space.units(params, WIRING, scope)
    return space.weights(params, tuple(f"{name}/kernel" for name in shapes), scope)


def line(ones, scope="global", sizes=(12,)):
    """A space of segments of these sizes, and bits whose first `ones[i]` of segment i are on."""
    where = make_space("weights", scope, {f"l{i}": (1, size) for i, size in enumerate(sizes)})
    parts = [np.arange(size) < n for size, n in zip(sizes, ones, strict=True)]
    return where, np.concatenate(parts)


def random_bits(where, share=0.4):
    """Each segment with round(share * size) ones."""
    draw = np.random.default_rng(3)
    return np.concatenate([draw.permutation(n) < round(share * n) for n in where.sizes])


def walk_along(where, bits, sizes):
    """The walk after each of as many draws as there are `sizes`, and the draws, stacked."""
    most = swaps.most(where, bits)

    def body(walk, element):
        drawn = swaps.draw(element[0], where, walk, element[1])
        walk = swaps.toggle(where, walk, drawn, most)
        return walk, (walk, drawn)

    first = swaps.init(KEY, where, jnp.asarray(bits))
    keys = jax.random.split(jax.random.key(1), len(sizes))
    walks, drawn = jax.jit(lambda x: lax.scan(body, first, x))((keys, jnp.asarray(sizes)))[1]
    return first, walks, drawn


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


@pytest.mark.parametrize("chunk", [3, swaps.CHUNK])
@pytest.mark.parametrize(("granularity", "scope"), PLACES)
def test_draws_of_any_size_keep_density_order_and_counts(monkeypatch, granularity, scope, chunk):
    monkeypatch.setattr(swaps, "CHUNK", chunk)
    where = make_space(granularity, scope)
    bits = random_bits(where)
    ones = held(where, bits)
    most = swaps.most(where, bits)
    assert most > chunk or chunk > 3 or (granularity, scope) == ("units", "layer")
    sizes = np.tile([1, 2, 3, 4, 7, most, most + 100], 40)
    first, walks, drawn = walk_along(where, bits, sizes)
    seen, order = np.asarray(walks.bits), np.asarray(walks.order)
    assert (seen.sum(1) == bits.sum()).all()
    assert [(h == o).all() for h, o in zip(held(where, seen), ones, strict=True)] == [
        True for _ in ones
    ]
    np.testing.assert_array_equal(walks.ones, np.tile(ones, (len(sizes), 1)))
    # the order is a permutation, and in each pool the first entries are exactly the ones
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(where.size), (len(sizes), 1)))
    for start, size, n in zip(*swaps.pools(where), ones, strict=True):
        part = order[:, start : start + size]
        assert ((start <= part) & (part < start + size)).all()
        on = np.take_along_axis(seen, part, 1)
        assert on[:, :n].all() and not on[:, n:].any()
    # each draw changes k ones and k zeros: its positions are distinct
    before = np.concatenate([[first.bits], seen[:-1]])
    room = {start: min(n, size - n) for start, size, n in zip(*swaps.pools(where), ones)}  # noqa: B905
    asked = [min(k, room[int(start)]) for k, start in zip(sizes, drawn.start, strict=True)]
    np.testing.assert_array_equal(drawn.size, asked)
    np.testing.assert_array_equal((before & ~seen).sum(1), asked)
    np.testing.assert_array_equal((~before & seen).sum(1), asked)


@pytest.mark.parametrize("chunk", [4, swaps.CHUNK])
@pytest.mark.parametrize("scope", space.SCOPES)
def test_a_draws_positions_are_distinct_and_in_their_pool(monkeypatch, scope, chunk):
    monkeypatch.setattr(swaps, "CHUNK", chunk)
    where = make_space("weights", scope)
    bits = random_bits(where)
    walk = swaps.init(KEY, where, jnp.asarray(bits))
    most = swaps.most(where, bits)
    assert most > 4

    def one(key, size):
        drawn = swaps.draw(key, where, walk, size)
        return drawn, positions(where, drawn, most)

    sizes = jnp.arange(1, 241) % most + 1
    drawn, counts = jax.jit(jax.vmap(one))(jax.random.split(KEY, 240), sizes)
    assert set(np.unique(counts)) == {0, 1}
    np.testing.assert_array_equal(counts.sum(2), np.stack([drawn.size, drawn.size], 1))
    at = np.arange(where.size)
    start, ones, zeros = (np.asarray(x).astype(int)[:, None] for x in drawn[1:4])
    assert not counts[:, 0][(at < start) | (at >= start + ones)].any()
    assert not counts[:, 1][(at < start + ones) | (at >= start + ones + zeros)].any()


def test_progressions_in_a_large_space_do_not_overflow():
    # 3,000,000 bits: products reach 1,431 * 1,499,999 < 2^32 only because chunks are narrowed to
    # 2^32 // 3,000,000 = 1,431; the expected positions are Python's unbounded integers
    n, most = 3_000_000, 5000
    where = make_space("weights", "global", {"fc1": (1000, 3000)})
    ones, zeros = 1_499_999, 1_500_001
    one, one_stride, zero, zero_stride = 1_499_990, 1_499_998, 7, 1_499_989
    drawn = swaps.Draw(
        jnp.int32(most),
        *(jnp.uint32(x) for x in (0, ones, zeros, one, one_stride, zero, zero_stride)),
    )
    width = 2**32 // n

    def body(carry, taken, blank, live):
        i, buffer = carry
        rows = jnp.where(live, jnp.stack([taken, blank]), 0)
        return i + width, lax.dynamic_update_slice(buffer, rows, (0, i))

    buffer = jnp.zeros((2, 4 * width), jnp.uint32)
    run = jax.jit(lambda d, b: swaps.over_positions(where, d, most, body, (0, b))[1])
    got = np.asarray(run(drawn, buffer))[:, :most]
    assert got[0].tolist() == [(one + j * one_stride) % ones for j in range(most)]
    assert got[1].tolist() == [ones + (zero + j * zero_stride) % zeros for j in range(most)]


@pytest.mark.parametrize("chunk", [3, swaps.CHUNK])
@pytest.mark.parametrize("scope", space.SCOPES)
def test_toggling_twice_restores_the_walk_and_when_false_does_nothing(monkeypatch, scope, chunk):
    monkeypatch.setattr(swaps, "CHUNK", chunk)
    where = make_space("weights", scope)
    bits = random_bits(where)
    most = swaps.most(where, bits)
    first = swaps.init(KEY, where, jnp.asarray(bits))

    @jax.jit
    def check(key, size):
        drawn = swaps.draw(key, where, first, size)
        there = swaps.toggle(where, first, drawn, most)
        back = swaps.toggle(where, there, drawn, most)
        return there, back, swaps.toggle(where, first, drawn, most, when=jnp.bool_(False))

    for i, size in enumerate((1, 2, 5, most, most + 9)):
        there, back, still = check(jax.random.key(i), size)
        assert not np.array_equal(there.bits, first.bits)
        for walk in (back, still):
            for got, expected in zip(walk, first, strict=True):
                np.testing.assert_array_equal(got, expected)


def test_each_one_and_each_zero_is_equally_likely():
    # 5 ones and 7 zeros: a draw of k takes each one with probability k / 5, each zero with k / 7
    where, bits = line([5])
    walk = swaps.init(KEY, where, jnp.asarray(bits))
    draws = 20_000

    @jax.jit
    def left_and_entered(key, size):
        def one(key):
            drawn = swaps.draw(key, where, walk, size)
            return swaps.toggle(where, walk, drawn, 5).bits != walk.bits

        return jax.vmap(one)(jax.random.split(key, draws)).mean(0)

    for size in (1, 2, 4):
        share = np.asarray(left_and_entered(jax.random.key(size), size))
        expected = np.where(bits, size / 5, size / 7)
        error = np.sqrt(expected * (1 - expected) / draws)  # one standard error
        assert (abs(share - expected) < 4.5 * error).all()


def test_each_pool_is_drawn_in_proportion_to_the_pairs_that_it_can_swap():
    # room = min(ones, zeros): 2 of (2, 6), 1 of (5, 1), 0 of (4, 0): chances 2/3, 1/3, 0
    where, bits = line([2, 5, 4], "layer", (8, 6, 4))
    walk = swaps.init(KEY, where, jnp.asarray(bits))
    keys = jax.random.split(jax.random.key(2), 9000)
    starts = jax.vmap(lambda key: swaps.draw(key, where, walk, 1).start)(keys)
    share = np.bincount(np.asarray(starts), minlength=15)[[0, 8, 14]] / 9000
    assert share[2] == 0
    assert abs(share[0] - 2 / 3) < 4.5 * np.sqrt(2 / 9 / 9000)


def test_a_size_beyond_the_room_swaps_all_there_is():
    # 9 ones, 3 zeros: the 3 zeros all come on, whatever is asked for
    where, bits = line([9])
    _, walks, drawn = walk_along(where, bits, [50, 3])
    assert drawn.size.tolist() == [3, 3]
    assert walks.bits[0, 9:].all() and walks.bits[0].sum() == 9
    # with nothing to swap a draw does nothing
    for ones in (0, 12):
        where, bits = line([ones])
        _, walks, drawn = walk_along(where, bits, [1, 50])
        assert drawn.size.tolist() == [0, 0]
        np.testing.assert_array_equal(walks.bits, [bits, bits])


def test_most_is_the_largest_room_of_any_pool_and_of_any_row():
    # pools (2 of 8), (5 of 6), (4 of 4): rooms 2, 1, 0; as one pool 11 of 18: 7
    where, bits = line([2, 5, 4], "layer", (8, 6, 4))
    assert swaps.most(where, bits) == 2
    assert swaps.most(where._replace(scope="global"), bits) == 7
    other = line([3, 3, 1], "layer", (8, 6, 4))[1]
    assert swaps.most(where, np.stack([bits, other])) == 3


@pytest.mark.parametrize("chunk", [3, swaps.CHUNK])
@pytest.mark.parametrize("granularity", ["weights", "units"])
def test_layer_change_is_the_counted_change(monkeypatch, granularity, chunk):
    monkeypatch.setattr(swaps, "CHUNK", chunk)
    where = make_space(granularity, "global")
    bits = random_bits(where)
    most = swaps.most(where, bits)
    walk = swaps.init(KEY, where, jnp.asarray(bits))

    @jax.jit
    @jax.vmap
    def both(key, size):
        drawn = swaps.draw(key, where, walk, size)
        after = swaps.toggle(where, walk, drawn, most).bits
        return swaps.layer_change(where, walk, drawn, most), after

    change, after = both(jax.random.split(KEY, 60), jnp.arange(60) % (most + 2))
    segments = np.repeat(np.arange(len(where.sizes)), where.sizes)
    moved = np.asarray(after).astype(int) - bits
    counted = np.stack([moved[:, segments == s].sum(1) for s in range(len(where.sizes))], 1)
    np.testing.assert_array_equal(change, counted)
    assert np.any(counted) and not change.sum(1).any()


@pytest.mark.parametrize("n", [1, 6, 134, 5000, 300_000])
def test_strides_are_coprime_with_every_count(n):
    strides = swaps._strides(n)
    assert strides.shape == (swaps.STRIDES,) and len(set(strides.tolist())) == swaps.STRIDES
    counts = np.arange(1, n + 1)
    if n > 5000:  # too many to try each: the largest, and some
        counts = np.r_[counts[-50:], np.random.default_rng(0).integers(1, n, 500)]
    assert (np.gcd.outer(strides.astype(int), counts) == 1).all()


# --- tabu ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [3, swaps.CHUNK])
def test_hash_after_is_the_hash_of_the_mask_it_leads_to(monkeypatch, chunk):
    monkeypatch.setattr(swaps, "CHUNK", chunk)
    where = make_space("weights", "global")
    bits = random_bits(where)
    most = swaps.most(where, bits)
    word = tabu.words(where)

    @jax.jit
    @jax.vmap
    def both(key, size):
        walk = swaps.init(key, where, jnp.asarray(bits))
        memory = tabu.init(word, walk.bits, 2)
        drawn = swaps.draw(key, where, walk, size)
        after = swaps.toggle(where, walk, drawn, most).bits
        return tabu.hash_after(where, word, memory, walk, drawn, most), tabu.init(word, after, 2)

    hash_, memory = both(jax.random.split(KEY, 40), jnp.arange(40) % (most + 1))
    np.testing.assert_array_equal(hash_, memory.hash)
    # size 0 leads nowhere; the 39 others go to masks, and hashes, of their own
    assert len(np.unique(hash_, axis=0)) == 40


def test_memory_knows_the_last_masks_and_forgets_older_ones():
    where, bits = line([6])
    word = tabu.words(where)
    hashes = [tabu.init(word, jnp.asarray(np.roll(bits, i)), 0).hash for i in range(6)]
    memory = tabu.init(word, jnp.asarray(bits), 3)
    for i in range(1, 6):
        memory = tabu.remember(memory, hashes[i], jnp.bool_(False))  # not when a move is refused
        assert not tabu.known(memory, hashes[i])
        memory = tabu.remember(memory, hashes[i], jnp.bool_(True))
        np.testing.assert_array_equal(memory.hash, hashes[i])
        known = [bool(tabu.known(memory, h)) for h in hashes]
        assert known == [i - 3 < j <= i for j in range(6)]


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_search_with_tabu_keeps_off_its_last_masks(length):
    # 6 bits, 3 on: 20 masks, each with 9 neighbours, so that five are easily avoided
    where, bits = line([3], sizes=(6,))
    energy = Energy(lambda key, mask: jnp.float32(0), fresh=False)
    kernel = annealing.build(where, energy, annealing.Rules(most=3, tabu=length))
    state = kernel.init(KEY, where.mask(jnp.asarray(bits)))
    ticks = annealing.plan(400, lambda t: t * 0.0 + 1, lambda t: 1 + t % 3)

    def body(state, tick):
        state, info = kernel.step(jax.random.fold_in(KEY, tick.step), tick, state)
        return state, (state.walk.bits, info.accepted)

    visited, accepted = jax.jit(lambda s: lax.scan(body, s, ticks))(state)[1]
    codes = [int(c) for c in np.asarray(visited)[np.asarray(accepted)] @ (1 << np.arange(6))]
    path = [7, *codes]  # the start, 0b111, then wherever it moved to
    assert len(path) > 300
    again = [path[i] in path[max(0, i - length) : i] for i in range(1, len(path))]
    assert not any(again)
    # one further back is met again, so that the memory is no longer than asked for
    assert any(path[i] in path[max(0, i - length - 1) : i] for i in range(1, len(path)))
