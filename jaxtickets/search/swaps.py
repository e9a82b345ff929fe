"""Swaps: k ones become zeros and k zeros become ones, drawn and undone in O(k).

A walk stores a permutation `order` of the bit indices in which, within each pool, the ones come
first. A pool is the whole vector, or one segment where each segment keeps its count. A draw is two
arithmetic progressions, one over the ones of a pool and one over its zeros: `(offset + j · stride)
mod K` for j < k. The stride is coprime to K, so the positions are distinct. Exchanging the entries
of `order` at the j-th positions of both progressions swaps k ones; exchanging them again undoes the
swap.

The order is random, so each one and each zero is equally likely to be drawn. A swap and its inverse
are equally likely, so the proposal is symmetric, as Metropolis' rule requires. Positions must not
be drawn with replacement: repeated ones would corrupt the order.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets.search.moves import Moves, Proposal
from jaxtickets.search.space import Space, counts, segment
from jaxtickets.search.tabu import Memory, known, recall, remember, words, xor
from jaxtickets.types import Array, Key, PyTree

CHUNK = 2048
STRIDES = 1024


class Walk(NamedTuple):
    """A walk over bit vectors.

    Attributes:
      bits: bool`[n]`, the current point.
      order: int32`[n]`: a permutation of the indices; in each pool first the ones, then the zeros.
      ones: int32`[pools]`: the number of ones in each pool; swaps never change it.
      memory: extra state of the moves: a `tabu.Memory`, an `informed.Local`, or `()`.
    """

    bits: Array
    order: Array
    ones: Array
    memory: PyTree = ()


class Draw(NamedTuple):
    """A swap.

    Attributes:
      size: int32 scalar, k.
      start: uint32 scalar, the first position of the pool.
      ones, zeros: uint32 scalars, the number of ones and of zeros in the pool, each at least 1.
      one, one_stride: uint32 scalars, offset and stride of the progression over the ones.
      zero, zero_stride: uint32 scalars, offset and stride of the progression over the zeros.
    """

    size: Array
    start: Array
    ones: Array
    zeros: Array
    one: Array
    one_stride: Array
    zero: Array
    zero_stride: Array


def pools(space: Space) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Starts and sizes of the pools, the parts of the vector within which ones move.

    >>> from jaxtickets.search.space import weights
    >>> params = {"a": np.ones((1, 2)), "b": np.ones((1, 3))}
    >>> pools(weights(params, ("a", "b"))), pools(weights(params, ("a", "b"), scope="layer"))
    (((0,), (5,)), ((0, 2), (2, 3)))
    """
    if space.scope == "layer":
        return space.starts, space.sizes
    return (0,), (space.size,)


def init(key: Key, space: Space, bits: Array) -> Walk:
    """A walk at `bits[n]` whose order is random within the ones and within the zeros of each pool.

    The key is consumed.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> walk = init(jax.random.key(0), space, jnp.array([False, True, False, True]))
    >>> sorted(walk.order[:2].tolist()), sorted(walk.order[2:].tolist()), walk.ones.tolist()
    ([1, 3], [0, 2], [2])
    """
    noise = jax.random.uniform(key, (space.size,))
    starts, sizes = pools(space)
    order, ones = [], []
    for start, size in zip(starts, sizes, strict=True):
        part = bits[start : start + size]
        rank = jnp.where(part, noise[start : start + size], 2.0 + noise[start : start + size])
        order.append(start + jnp.argsort(rank).astype(jnp.int32))
        ones.append(jnp.sum(part, dtype=jnp.int32))
    return Walk(bits, jnp.concatenate(order), jnp.stack(ones))


def draw(key: Key, space: Space, walk: Walk, size: Array) -> Draw:
    """Draws a random swap of `size` ones and zeros; the key is consumed.

    With several pools, one of those that can swap is drawn uniformly, so that a layer of a hundred
    weights is visited as often as one of a million. It swaps its share of `size`, in proportion to
    the number of pairs it can hold, `min(ones, zeros)`, at least one pair, and never more than it
    can hold.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> walk = init(jax.random.key(0), space, jnp.array([False, True, False, True]))
    >>> drawn = draw(jax.random.key(1), space, walk, size=5)
    >>> int(drawn.size), int(drawn.ones), int(drawn.zeros)  # only two pairs can be swapped
    (2, 2, 2)
    """
    pool_key, one_key, zero_key, stride_key = jax.random.split(key, 4)
    starts, sizes = pools(space)
    zeros = jnp.asarray(sizes, jnp.int32) - walk.ones
    room = jnp.minimum(walk.ones, zeros)
    if len(starts) == 1:
        pool = jnp.int32(0)
    else:
        pool = jax.random.categorical(pool_key, jnp.where(room > 0, 0.0, -jnp.inf))
        share = room[pool] / jnp.maximum(jnp.sum(room), 1)
        size = jnp.maximum(jnp.round(size * share), 1)
    ones = jnp.maximum(walk.ones[pool], 1).astype(jnp.uint32)
    blanks = jnp.maximum(zeros[pool], 1).astype(jnp.uint32)
    strides = jnp.asarray(coprimes(space.size))[jax.random.randint(stride_key, (2,), 0, STRIDES)]
    return Draw(
        size=jnp.clip(jnp.asarray(size, jnp.int32), 0, room[pool]),
        start=jnp.asarray(starts, jnp.uint32)[pool],
        ones=ones,
        zeros=blanks,
        one=jax.random.bits(one_key, (), jnp.uint32) % ones,
        one_stride=strides[0] % ones,
        zero=jax.random.bits(zero_key, (), jnp.uint32) % blanks,
        zero_stride=strides[1] % blanks,
    )


def over_positions(
    space: Space, drawn: Draw, most: int, body: Callable[..., Any], carry: Any
) -> Any:
    """Folds `body(carry, ones[c], zeros[c], live[c])` over a draw's positions, `c` at a time.

    `most` is the static upper bound of `drawn.size`; the loop runs `ceil(size / c)` times.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> whole = Draw(2, *map(np.uint32, (0, 2, 2, 0, 1, 1, 1)))
    >>> def collect(carry, ones, zeros, live):
    ...     return carry + [ones[live].tolist(), zeros[live].tolist()]
    >>> over_positions(space, whole, 2, collect, [])
    [[0, 1], [3, 2]]
    """
    width = min(CHUNK, max(most, 1), 2**32 // space.size)
    lane = jnp.arange(width, dtype=jnp.uint32)
    jump = jnp.uint32(width)

    def one_chunk(i: Array, state: tuple) -> tuple:
        one, zero, carry = state
        ones = drawn.start + (one + lane * drawn.one_stride % drawn.ones) % drawn.ones
        zeros = (zero + lane * drawn.zero_stride % drawn.zeros) % drawn.zeros
        zeros = drawn.start + drawn.ones + zeros
        live = lane.astype(jnp.int32) + i * width < drawn.size
        carry = body(carry, ones, zeros, live)
        one = (one + jump * drawn.one_stride % drawn.ones) % drawn.ones
        zero = (zero + jump * drawn.zero_stride % drawn.zeros) % drawn.zeros
        return one, zero, carry

    begin = (drawn.one, drawn.zero, carry)
    if most <= width:
        return one_chunk(jnp.int32(0), begin)[2]
    return lax.fori_loop(0, -(-drawn.size // width), one_chunk, begin)[2]


def toggle(space: Space, walk: Walk, drawn: Draw, most: int, when: Array | bool = True) -> Walk:
    """Applies a draw to a walk; applying it again undoes it. Does nothing unless `when`.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> walk = init(jax.random.key(0), space, jnp.array([False, True, False, True]))
    >>> drawn = draw(jax.random.key(1), space, walk, size=2)
    >>> there = toggle(space, walk, drawn, most=2)
    >>> there.bits.tolist(), toggle(space, there, drawn, most=2).bits.tolist()
    ([True, False, True, False], [False, True, False, True])
    """

    def body(carry: tuple, ones: Array, zeros: Array, live: Array) -> tuple:
        bits, order = carry
        return swap_entries(bits, order, ones, zeros, live & when)

    bits, order = over_positions(space, drawn, most, body, (walk.bits, walk.order))
    return walk._replace(bits=bits, order=order)


def swap_entries(
    bits: Array, order: Array, ones: Array, zeros: Array, live: Array
) -> tuple[Array, Array]:
    """Swaps the entries of `order[n]` at positions `ones[k]` and `zeros[k]`, and updates `bits[n]`.

    Only positions where `live[k]` is True are swapped; they must be distinct.

    >>> bits, order = jnp.array([False, True, False, True]), jnp.array([1, 3, 0, 2])
    >>> first, third, live = np.array([0]), np.array([2]), np.array([True])
    >>> bits, order = swap_entries(bits, order, ones=first, zeros=third, live=live)
    >>> bits.tolist(), order.tolist()
    ([True, False, False, True], [0, 3, 1, 2])
    """
    off, on = order[ones], order[zeros]
    nowhere = jnp.int32(order.shape[0])
    ones, zeros = jnp.where(live, ones, nowhere), jnp.where(live, zeros, nowhere)
    order = order.at[ones].set(on, mode="drop").at[zeros].set(off, mode="drop")
    off, on = jnp.where(live, off, nowhere), jnp.where(live, on, nowhere)
    bits = bits.at[off].set(False, mode="drop").at[on].set(True, mode="drop")
    return bits, order


def positions(space: Space, drawn: Draw, count: int) -> tuple[Array, Array]:
    """uint32`[count]` twice: the first `count` positions of a draw's two progressions.

    `count` may exceed the draw's `size`. The positions are distinct up to the number of ones, or of
    zeros. `count` is at most `(2^32 // n)^2`.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 5))}, ("w",))
    >>> drawn = Draw(2, *map(np.uint32, (0, 2, 3, 1, 1, 0, 2)))
    >>> ones, zeros = positions(space, drawn, 2)
    >>> ones.tolist(), zeros.tolist()  # of two ones, and of the three zeros after them
    ([1, 0], [2, 4])
    """
    ones = progression(drawn.one, drawn.one_stride, drawn.ones, count, space.size)
    zeros = progression(drawn.zero, drawn.zero_stride, drawn.zeros, count, space.size)
    return drawn.start + ones, drawn.start + drawn.ones + zeros


def progression(first: Array, stride: Array, length: Array, count: int, longest: int) -> Array:
    """uint32`[count]`: `(first + j · stride) mod length` for `j < count`.

    Args:
      first, stride, length: uint32 scalars; the first two are less than `length`.
      count: static; at most `(2^32 // longest)^2`.
      longest: static upper bound of `length`.

    >>> progression(np.uint32(1), np.uint32(3), np.uint32(5), count=5, longest=5).tolist()
    [1, 4, 2, 0, 3]
    """
    lane = np.arange(count)
    width = 2**32 // longest  # products with factors below `width` fit into 32 bits
    low, high = jnp.uint32(lane % width), jnp.uint32(lane // width)
    jump = jnp.uint32(min(width, 2**32 - 1)) * stride % length
    return (first + low * stride % length + high * jump % length) % length


def over_changes(
    space: Space, proposal: Proposal, most: int, body: Callable[..., Any], carry: Any
) -> Any:
    """Folds `body(carry, off[c], on[c], live[c])` over the bits that a proposal switches.

    The proposal is one of `moves`. `off` and `on` are bit indices; entries where `live` is False
    did not change.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 2))}, ("w",))
    >>> swap = moves(space, most=1)
    >>> walk = swap.init(jax.random.key(0), jnp.array([True, False]))
    >>> proposal = swap.propose(jax.random.key(1), 1, walk)
    >>> def collect(carry, off, on, live):
    ...     return carry + [off.tolist(), on.tolist()]
    >>> over_changes(space, proposal, 1, collect, [])
    [[0], [1]]
    """
    drawn, _ = proposal.undo
    order = proposal.walk.order

    def indices(carry: Any, ones: Array, zeros: Array, live: Array) -> Any:
        return body(carry, order[zeros], order[ones], live)  # the swap exchanged them already

    return over_positions(space, drawn, most, indices, carry)


def layer_change(space: Space, walk: Walk, drawn: Draw, most: int) -> Array:
    """int32`[segments]`: the change of each segment's count by a draw.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"a": np.ones((1, 1)), "b": np.ones((1, 1))}, ("a", "b"))
    >>> walk = init(jax.random.key(0), space, jnp.array([True, False]))
    >>> drawn = draw(jax.random.key(1), space, walk, size=1)
    >>> layer_change(space, walk, drawn, most=1).tolist()
    [-1, 1]
    """

    def body(change: Array, ones: Array, zeros: Array, live: Array) -> Array:
        one = live.astype(jnp.int32)
        change = change.at[segment(space, walk.order[ones])].add(-one)
        return change.at[segment(space, walk.order[zeros])].add(one)

    zero = jnp.zeros(len(space.starts), jnp.int32)
    return over_positions(space, drawn, most, body, zero)


def hash_after(
    space: Space, word: Array, memory: Memory, walk: Walk, drawn: Draw, most: int
) -> Array:
    """uint32`[2]`: the hash of the mask after a draw.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 2))}, ("w",))
    >>> word, bits = words(space), jnp.array([True, False])
    >>> walk = init(jax.random.key(0), space, bits)
    >>> drawn = draw(jax.random.key(1), space, walk, size=1)
    >>> after = hash_after(space, word, recall(word, bits, 1), walk, drawn, most=1)
    >>> bool((after == recall(word, ~bits, 1).hash).all())
    True
    """

    def body(change: Array, ones: Array, zeros: Array, live: Array) -> Array:
        both = word[walk.order[ones]] ^ word[walk.order[zeros]]
        return change ^ xor(jnp.where(live[:, None], both, jnp.uint32(0)))

    change = over_positions(space, drawn, most, body, jnp.zeros(2, jnp.uint32))
    return memory.hash ^ change


def moves(
    space: Space,
    most: int,
    floor: tuple[int, ...] | None = None,
    tabu: int = 0,
    tries: int = 20,
) -> Moves:
    """Swaps as moves over `bits[n]`; the size is the number of ones to switch off.

    Args:
      space: the state space.
      most: the largest size that a proposal may ask for.
      floor: the fewest ones in each segment. A swap below the floor is drawn but not allowed, so
        that proposals stay symmetric.
      tabu: the number of recent masks, the current one included, that a swap must not return to.
      tries: how many swaps are drawn until one avoids those masks; after that the move is not
        allowed.

    >>> from jaxtickets.search.space import weights
    >>> swap = moves(weights({"w": np.ones((1, 4))}, ("w",)), most=2)
    >>> walk = swap.init(jax.random.key(0), jnp.array([True, True, False, False]))
    >>> proposal = swap.propose(jax.random.key(1), 2, walk)
    >>> proposal.walk.bits.tolist(), swap.settle(proposal, jnp.bool_(False)).bits.tolist()
    ([False, False, True, True], [True, True, False, False])
    """
    most = max(most, 1)
    word = words(space) if tabu else None
    nothing = jnp.zeros(2, jnp.uint32)

    def begin(key: Key, bits: Array) -> Walk:
        walk = init(key, space, bits)
        return walk._replace(memory=recall(word, bits, tabu)) if tabu else walk

    def above(walk: Walk, drawn: Draw) -> Array:
        """Whether a draw leaves each segment at or above its floor."""
        if floor is None:
            return jnp.bool_(True)
        after = counts(space, walk.bits) + layer_change(space, walk, drawn, most)
        return jnp.all(after >= jnp.asarray(floor))

    def pick(key: Key, size: Array, walk: Walk) -> tuple[Draw, Array, Array]:
        """A draw, whether it is allowed, and the hash of the mask after it."""
        if not tabu:
            drawn = draw(key, space, walk, size)
            return drawn, above(walk, drawn), nothing

        def attempt(i: Array) -> tuple[Draw, Array, Array]:
            drawn = draw(jax.random.fold_in(key, i), space, walk, size)
            hash_ = hash_after(space, word, walk.memory, walk, drawn, most)
            return drawn, ~known(walk.memory, hash_), hash_

        def again(carry: tuple) -> tuple:
            i, _ = carry
            return i + 1, attempt(i)

        def failed(carry: tuple) -> Array:
            i, (_, allowed, _) = carry
            return ~allowed & (i < tries)

        begun = jnp.int32(1), attempt(jnp.int32(0))
        drawn, fresh, hash_ = lax.while_loop(failed, again, begun)[1]
        return drawn, fresh & above(walk, drawn), hash_

    def propose(key: Key, size: Array, walk: Walk) -> Proposal:
        drawn, allowed, hash_ = pick(key, size, walk)
        there = toggle(space, walk, drawn, most)
        return Proposal(there, allowed, jnp.float32(0), drawn.size, (drawn, hash_))

    def settle(proposal: Proposal, accepted: Array) -> Walk:
        drawn, hash_ = proposal.undo
        walk = toggle(space, proposal.walk, drawn, most, when=~accepted)
        if tabu:
            walk = walk._replace(memory=remember(walk.memory, hash_, accepted))
        return walk

    return Moves(begin, propose, settle, lambda walk: walk.bits, hamming, most)


def hamming(bits: Array, others: Array) -> Array:
    """int32 scalar: the number of bits that differ.

    >>> int(hamming(np.array([True, False, True]), np.array([True, True, False])))
    2
    """
    return jnp.sum(bits != others, dtype=jnp.int32)


def most(space: Space, bits: np.ndarray) -> int:
    """The largest useful swap at any of `bits[..., n]`, over all pools; computed on the host.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> most(space, np.array([True, True, True, False]))
    1
    """
    room: Any = 0
    for start, size in zip(*pools(space), strict=True):
        ones = np.asarray(bits)[..., start : start + size].sum(-1)
        room = room + np.minimum(ones, size - ones)
    return int(np.max(room))


@lru_cache
def coprimes(n: int) -> np.ndarray:
    """uint32`[STRIDES]`: primes above n, hence coprime to every K <= n, spread evenly.

    >>> some = coprimes(100)
    >>> len(some), int(some.min()) > 100, bool(np.all(np.gcd(some, 90) == 1))
    (1024, True, True)
    """
    low = max(n, 1 << 12)
    sieve = np.ones(4 * low, bool)
    sieve[:2] = False
    for p in range(2, int(len(sieve) ** 0.5) + 1):
        if sieve[p]:
            sieve[p * p :: p] = False
    primes = np.flatnonzero(sieve)
    primes = primes[primes > low]
    return primes[np.linspace(0, len(primes) - 1, STRIDES).astype(int)].astype(np.uint32)
