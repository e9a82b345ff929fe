"""Tabu: a memory of the last masks of a walk, compared by hash.

The hash of a mask is the exclusive or of a random 64-bit word for each of its ones (Zobrist, 1970),
so that a swap updates it in O(k). Two masks share a hash by accident with probability 2^-64.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.keys import stream
from jaxtickets.search.space import Space
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array


class Memory(NamedTuple):
    """The hashes of the current mask and of the last masks.

    Attributes:
      hash: uint32`[2]`, of the current mask.
      past: uint32`[length, 2]`, a ring buffer that includes the current mask's hash.
      next: int32 scalar, the entry that is overwritten next.
    """

    hash: Array
    past: Array
    next: Array


def words(space: Space) -> Array:
    """uint32`[n, 2]`: the random word of each bit; the same for every walk.

    >>> from jaxtickets.search.space import weights
    >>> words(weights({"w": np.ones((1, 4))}, ("w",))).shape
    (4, 2)
    """
    return jax.random.bits(stream(0, "mask_hash"), (space.size, 2), jnp.uint32)


def recall(word: Array, bits: Array, length: int) -> Memory:
    """A memory of `length` masks that holds the mask `bits[n]`; `word` is the result of `words`.

    >>> word = np.array([[1, 0], [2, 0], [4, 0]], np.uint32)
    >>> memory = recall(word, np.array([True, False, True]), length=2)
    >>> memory.hash.tolist(), memory.past.tolist()  # 5 is 1 xor 4
    ([5, 0], [[5, 0], [0, 0]])
    """
    check_array("the bits", bits, word.shape[:1], bool)
    hash_ = xor(jnp.where(bits[:, None], word, jnp.uint32(0)))
    past = jnp.zeros((length, 2), jnp.uint32)
    if length:
        past = past.at[0].set(hash_)
    return Memory(hash_, past, jnp.int32(1 % max(length, 1)))


def known(memory: Memory, hash_: Array) -> Array:
    """bool scalar: whether a mask with this hash is among the last masks.

    >>> word = np.array([[1, 0], [2, 0], [4, 0]], np.uint32)
    >>> memory = recall(word, np.array([True, False, True]), length=2)
    >>> bool(known(memory, np.array([5, 0]))), bool(known(memory, np.array([6, 0])))
    (True, False)
    """
    return jnp.any(jnp.all(memory.past == hash_[None], axis=-1))


def remember(memory: Memory, hash_: Array, when: Array) -> Memory:
    """The memory after a move to the mask with this hash; unchanged unless `when`.

    >>> word = np.array([[1, 0], [2, 0], [4, 0]], np.uint32)
    >>> memory = recall(word, np.array([True, False, True]), length=2)
    >>> remember(memory, np.array([6, 0], np.uint32), True).past.tolist()
    [[5, 0], [6, 0]]
    """
    past = memory.past.at[memory.next].set(hash_)
    moved = Memory(hash_, past, (memory.next + 1) % past.shape[0])
    return jax.tree.map(lambda new, old: jnp.where(when, new, old), moved, memory)


def xor(rows: Array) -> Array:
    """uint32`[2]`: the exclusive or of `rows[k, 2]`.

    >>> xor(np.array([[1, 8], [4, 8], [5, 3]], np.uint32)).tolist()
    [0, 3]
    """
    fold: Callable[[Array, Array], Array] = lax.bitwise_xor
    return lax.reduce(rows, jnp.uint32(0), fold, (0,))
