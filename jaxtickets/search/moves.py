"""Moves: how a walk goes from a point to a neighbour, whatever its points are.

The annealing kernel proposes, evaluates and settles, and knows no more than this of the space that
it walks over: bits that become a mask (`swaps.moves`, `informed.moves`), or any tree of arrays. A
walk is a point and what its proposals need beside it; no step copies it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.types import Array, Key, PyTree


class Proposal(NamedTuple):
    """Where a walk would go.

    Attributes:
      walk: the walk there.
      allowed: bool, False for what must not be accepted, such as a count below a floor.
      log_ratio: float32, `ln q(back) - ln q(forth)`, the logarithm of how likely the walk there
        proposes to come back against how likely this proposal was; 0 for symmetric proposals.
      size: what is really moved: int32, or float32 where sizes aren't whole.
      undo: what `settle` needs to go back.
    """

    walk: PyTree
    allowed: Array
    log_ratio: Array
    size: Array
    undo: PyTree


class Moves(NamedTuple):
    """The moves of a space: pure functions, and the sizes that they take.

    Attributes:
      init: `init(key, point) -> walk`; the key is consumed.
      propose: `propose(key, size, walk) -> Proposal`; the key is consumed.
      settle: `settle(proposal, accepted) -> walk`: the proposal's walk, or else the one before.
      point: `point(walk) -> point`, a tree of arrays: bool`[n]` where points are bits.
      distance: `distance(point, point) -> scalar`: the number of bits that differ, or what stands
        for it.
      most: the largest size.
      least: the least size.
      whole: whether sizes are whole numbers.
      heat: `heat(walk, temperature) -> walk`: the walk is told the temperature of the step to come,
        for proposals that depend on it; nothing by default.
      refresh: `refresh(walk) -> (walk, drift)`: what a walk keeps by differences is found anew, and
        how far it was off: the largest difference. Nothing and 0 by default.
    """

    init: Callable[[Key, PyTree], PyTree]
    propose: Callable[[Key, Array, PyTree], Proposal]
    settle: Callable[[Proposal, Array], PyTree]
    point: Callable[[PyTree], PyTree]
    distance: Callable[[PyTree, PyTree], Array]
    most: float
    least: float = 1.0
    whole: bool = True
    heat: Callable[[PyTree, Array], PyTree] = lambda walk, temperature: walk
    refresh: Callable[[PyTree], tuple[PyTree, Array]] = lambda walk: (walk, np.float32(0))


def settle(proposal: Proposal, accepted: Array) -> PyTree:
    """`Moves.settle` of proposals whose `undo` is the walk before: one of the two, leaf by leaf."""
    return jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), proposal.walk, proposal.undo
    )
