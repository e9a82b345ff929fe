"""N:M patterns: in every group of M inputs of an output, exactly N weights are kept.

A group is M consecutive inputs of one output, in the order of the kernel's rows. If M does not
divide the number of inputs, the R inputs that remain form a group that keeps `ceil(N R / M)`.
Hardware skips the zeros of the 2:4 pattern: Mishra et al., "Accelerating sparse deep neural
networks", 2021. A move selects k random groups and swaps a random one with a random zero in each.
The counts do not change, so the proposal is symmetric.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.search.moves import Moves, Proposal
from jaxtickets.search.space import Space
from jaxtickets.search.swaps import STRIDES, coprimes, hamming, progression
from jaxtickets.types import Array, Key


class Walk(NamedTuple):
    """A walk.

    Attributes:
      bits: bool`[n]`, the current point.
    """

    bits: Array


class Swap(NamedTuple):
    """The pairs that a move swaps; `n` in unused places.

    Attributes:
      off: int32`[most]`, the indices of the bits that are switched off.
      on: int32`[most]`, the indices of the bits that are switched on.
    """

    off: Array
    on: Array


class _Leaves(NamedTuple):
    """The layout of the leaves.

    Attributes:
      inputs, outputs: int`[leaves]`, the numbers of inputs and outputs of each leaf.
      bits, groups: int`[leaves]`, the indices of each leaf's first bit and first group.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    bits: np.ndarray
    groups: np.ndarray


def count(space: Space) -> int:
    """The number of groups, which is the largest size of a move.

    >>> from jaxtickets.search.space import weights
    >>> count(weights({"w": np.ones((4, 3))}, ("w",), scope="pattern", group=2))
    6
    """
    inputs, outputs = _matrices(space)
    return int((-(-inputs // space.group) * outputs).sum())


def moves(space: Space, most: int) -> Moves:
    """Moves that swap pairs within groups, over `bits[n]`; the size is the number of groups.

    A remainder group may be full and then cannot change. A move that draws only such groups is not
    allowed.

    Args:
      space: a space with the scope `pattern`.
      most: the largest size that a proposal may ask for.

    >>> from jaxtickets.search.space import weights
    >>> swap = moves(weights({"w": np.ones((2, 1))}, ("w",), scope="pattern", group=2), most=1)
    >>> walk = swap.init(jax.random.key(0), jnp.array([True, False]))
    >>> proposal = jax.jit(swap.propose)(jax.random.key(1), 1, walk)
    >>> proposal.walk.bits.tolist(), swap.settle(proposal, False).bits.tolist()
    ([False, True], [True, False])
    """
    most, groups = max(most, 1), count(space)

    def propose(key: Key, size: Array, walk: Walk) -> Proposal:
        group_key, stride_key, pair_key = jax.random.split(key, 3)
        size = jnp.clip(jnp.asarray(size, jnp.int32), 0, min(most, groups))
        length = jnp.uint32(groups)
        stride = jnp.asarray(coprimes(groups))[jax.random.randint(stride_key, (), 0, STRIDES)]
        first = jax.random.bits(group_key, (), jnp.uint32) % length
        group = progression(first, stride % length, length, most, groups)
        where = slots(space, group)
        held = walk.bits.at[where].get(mode="fill", fill_value=False)
        empty = ~held & (where < space.size)
        chance = jax.random.uniform(pair_key, (2, *where.shape))
        off, on = (
            jnp.take_along_axis(
                where, jnp.argmax(jnp.where(can, u, -1.0), axis=1)[:, None], axis=1
            )[:, 0]
            for can, u in zip((held, empty), chance, strict=True)
        )
        live = (jnp.arange(most) < size) & held.any(1) & empty.any(1)
        swap = Swap(*(jnp.where(live, index, space.size) for index in (off, on)))
        there = _switched(walk, swap)
        moved = jnp.sum(live, dtype=jnp.int32)
        return Proposal(there, moved > 0, jnp.float32(0), moved, swap)

    def settle(proposal: Proposal, accepted: Array) -> Walk:
        off, on = proposal.undo
        nowhere = jnp.int32(space.size)
        back = Swap(*(jnp.where(accepted, nowhere, index) for index in (on, off)))
        return _switched(proposal.walk, back)

    return Moves(
        lambda key, bits: Walk(bits), propose, settle, lambda walk: walk.bits, hamming, most
    )


def slots(space: Space, group: Array) -> Array:
    """int32`[k, M]`: the bit indices of `group[k]`; `n` in places that a short group lacks.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((4, 3))}, ("w",), scope="pattern", group=2)
    >>> slots(space, np.array([0, 1, 3], np.int32)).tolist()
    [[0, 3], [1, 4], [6, 9]]
    """
    leaves = _leaves(space)
    later = jnp.asarray(leaves.groups[1:], group.dtype)
    leaf = jnp.sum(group[:, None] >= later[None], axis=1)
    inputs, outputs, bits, groups = (jnp.asarray(a, jnp.int32)[leaf][:, None] for a in leaves)
    local = group.astype(jnp.int32)[:, None] - groups
    row = local // outputs * space.group + jnp.arange(space.group)[None]
    index = bits + row * outputs + local % outputs
    return jnp.where(row < inputs, index, jnp.int32(space.size))


def _switched(walk: Walk, swap: Swap) -> Walk:
    bits = walk.bits.at[swap.off].set(False, mode="drop")
    return Walk(bits.at[swap.on].set(True, mode="drop"))


def _matrices(space: Space) -> tuple[np.ndarray, np.ndarray]:
    outputs = np.array([shape[-1] for shape in space.shapes])
    return np.array(space.sizes) // outputs, outputs


def _leaves(space: Space) -> _Leaves:
    inputs, outputs = _matrices(space)
    many = -(-inputs // space.group) * outputs
    return _Leaves(inputs, outputs, np.array(space.starts), np.cumsum([0, *many[:-1]]))
