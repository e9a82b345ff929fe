"""The interface between a search and its space: how a walk proposes a neighbour, or goes back.

The annealing kernel proposes a move, evaluates its energy, and settles it. It knows nothing else
about the space. A point may be a bit vector that becomes a mask (`swaps.moves`, `informed.moves`)
or any tree of arrays. A walk holds a point and whatever the next proposal needs beside it, such as
an index of its ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.types import Array, Key, PyTree


class Proposal(NamedTuple):
    """A proposed move.

    Attributes:
      walk: the walk after the move.
      allowed: bool scalar, False if the move must not be accepted, for example because a layer
        would fall below its floor.
      log_ratio: float32 scalar, `ln q(x | x') - ln q(x' | x)` for a move from x to x': the log of
        the Hastings correction; 0 for a symmetric proposal.
      size: how much the move changes: int32 scalar, or float32 where sizes are not whole numbers.
      undo: what `Moves.settle` needs to undo the move.
    """

    walk: PyTree
    allowed: Array
    log_ratio: Array
    size: Array
    undo: PyTree


class Moves(NamedTuple):
    """The moves of a space, as pure functions, and the range of their sizes.

    Attributes:
      init: `init(key, point) -> walk`; the key is consumed.
      propose: `propose(key, size, walk) -> Proposal`; the key is consumed.
      settle: `settle(proposal, accepted) -> walk`: the proposed walk if `accepted`, else the walk
        before the proposal.
      point: `point(walk) -> point`, a tree of arrays; bool`[n]` where points are bit vectors.
      distance: `distance(point, point) -> scalar`: the Hamming distance of bit vectors, or another
        metric of the space.
      most: the largest size.
      least: the smallest size.
      whole: whether sizes are whole numbers.
      heat: `heat(walk, temperature) -> walk`: stores the temperature of the coming step in the
        walk, for proposals that depend on it. The default stores nothing.
      refresh: `refresh(walk) -> (walk, drift)`: recomputes what the walk updates incrementally;
        `drift` is the largest absolute error that had accumulated, a float32 scalar. The default
        recomputes nothing and returns a drift of 0.
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
    """`Moves.settle` for proposals whose `undo` is the walk before the move: selects a walk.

    >>> walk, before = np.array([0, 1]), np.array([1, 0])
    >>> proposal = Proposal(walk, allowed=True, log_ratio=0.0, size=1, undo=before)
    >>> settle(proposal, True).tolist(), settle(proposal, False).tolist()
    ([0, 1], [1, 0])
    """
    return jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), proposal.walk, proposal.undo
    )
