"""Moves that drop some kept weights and grow some pruned ones, with exact counts.

Most methods of dynamic sparse training are this move with other rules, shares and counts; each has
its file and says which. A move has two parts. The first prunes to the plan's next count, if that is
lower. The second replaces a number of weights: those with the lowest drop scores are dropped, and
as many of those with the highest grow scores are grown, among them what was just dropped. A weight
that is dropped and grown in the same move keeps its value and its moments.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks, schedules
from jaxtickets.dynamic import rules
from jaxtickets.dynamic.base import After, Before, View, every_so_often, sparse
from jaxtickets.dynamic.rules import Score
from jaxtickets.shape_checks import check_array, check_leading
from jaxtickets.types import Array, Keep, Key, Mask, Prunable, PyTree

Shares = Literal["leaf", "global"] | Callable[[View, Prunable], Array]
"""Where replaced weights grow: `leaf`, as many in each leaf as it lost; `global`, all leaves ranked
together, for the drops too; or `shares(view, prunable) -> float[leaves]`, each leaf in proportion
to its share, as far as it has room."""


class MovePlan(NamedTuple):
    """The counts of all moves.

    Attributes:
      ones: int32`[moves]`, the number of kept weights after each move, all leaves ranked together;
        or path -> int32`[moves]`, those of each leaf.
      replaced: like `ones`, how many of these are dropped and grown.
    """

    ones: Keep
    replaced: Keep


class MoveState(NamedTuple):
    """What `drop_and_grow` carries.

    Attributes:
      moves: int32 scalar, the number of moves so far.
      memory: what the rules or the hooks of a method carry; `()` if nothing.
    """

    moves: Array
    memory: PyTree = ()


def plan(
    moves: int,
    begin: Keep,
    end: Keep,
    *,
    fraction: float = 0.0,
    pruned_by: float = 1.0,
    settled_by: float = 1.0,
    last_fraction: float = 0.0,
    decay: Callable[[np.ndarray], np.ndarray] | None = None,
    floor: int = 0,
) -> MovePlan:
    """The counts of each move; with t = (i + 1) / moves the share of moves that are over after it,

        ones(t)     = end + (begin - end) (1 - min(t / pruned_by, 1))³,
        replaced(t) = ones(t) · (last_fraction + (fraction - last_fraction) · decay(t)).

    Args:
      moves: the number of moves, 1 or more.
      begin, end: the number of kept weights before the first move and after the last: an integer,
        or path -> integer.
      fraction, last_fraction: the share of the kept weights that is replaced, at first and in the
        end; from 0 to below 1.
      pruned_by: the share of the moves after which `end` is reached, in (0, 1].
      settled_by: the share of the moves after which nothing is replaced, in (0, 1].
      decay: t -> from 1 to 0; None for the half cosine `(1 + cos(π t / settled_by)) / 2`.
      floor: the number of kept weights that must not be replaced, in each leaf or over all.

    Raises:
      ValueError: an argument is out of range.
    """
    if moves < 1:
        raise ValueError(f"moves={moves}: must be 1 or more")
    for name, share in (("fraction", fraction), ("last_fraction", last_fraction)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}={share}: must be from 0 to below 1")
    for name, end_at in (("pruned_by", pruned_by), ("settled_by", settled_by)):
        if not 0 < end_at <= 1:
            raise ValueError(f"{name}={end_at}: must be above 0 and at most 1")
    t = np.arange(1, moves + 1) / moves
    cosine = (1 + np.cos(np.pi * np.minimum(t / settled_by, 1))) / 2
    falling = cosine if decay is None else decay(t)
    replaced = last_fraction + (fraction - last_fraction) * falling
    replaced = np.where(t > settled_by, 0.0, replaced)

    def counts(begin: int, end: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        if not max(floor, 1) <= end <= begin:
            raise ValueError(
                f"{name}begin={begin}, end={end}, floor={floor}: must be max(floor, 1) <= end <= "
                "begin"
            )
        ones = np.round(end + (begin - end) * schedules.gradual(t, pruned_by)).astype(np.int32)
        return ones, np.minimum(np.floor(ones * replaced), ones - floor).astype(np.int32)

    if not isinstance(end, Mapping):
        assert not isinstance(begin, Mapping)
        return MovePlan(*counts(int(begin), int(end), ""))
    assert isinstance(begin, Mapping)
    each = {path: counts(int(begin[path]), int(end[path]), f"{path}: ") for path in end}
    return MovePlan(*({path: pair[i] for path, pair in each.items()} for i in (0, 1)))


def drop_and_grow(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    *,
    drop: Score = rules.magnitude,
    grow: Score = rules.gradient,
    shares: Shares = "leaf",
    floor: int = 0,
    key: Key | None = None,
    before: Before | None = None,
    after: After | None = None,
    memory: PyTree = (),
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser with a move after each `every` training steps.

    Args:
      inner: the optimiser of the training steps; its moments must have one number for each weight.
      mask: bool, like the parameters: the initial mask, with the count that the plan begins with.
      prunable: the leaves that are ranked.
      moves: the counts; after the last move the mask stays.
      every: the number of training steps between two moves.
      drop, grow: the scores, see `rules`.
      shares: see `Shares`.
      floor: the fewest weights that each leaf keeps, where all are ranked together.
      key: for random choices.
      before, after: see `base.sparse`; the method's state is a `MoveState`.
      memory: the initial `MoveState.memory`.

    Raises:
      ValueError: the plan does not hold two int`[moves]` for all leaves or for each of them, or it
        has counts for each leaf and shares are global.
    """
    number = check_plan(moves, prunable)
    if isinstance(moves.ones, Mapping) and shares == "global":
        raise ValueError("shares=global: the plan has counts of each leaf, not of all together")
    moves = jax.tree.map(jnp.asarray, moves)
    change = mover(prunable, drop, grow, shares, floor)

    def move(view: View) -> tuple[Mask, PyTree]:
        index = view.method.moves
        last = jnp.minimum(index, number - 1)
        ones, replaced = jax.tree.map(lambda table: table[last], tuple(moves))
        over = index >= number
        replaced = jax.tree.map(lambda count: jnp.where(over, 0, count), replaced)
        return change(view, ones, replaced), view.method._replace(moves=index + 1)

    return sparse(
        inner,
        mask,
        move=move,
        due=every_so_often(every),
        before=before,
        after=after,
        method=MoveState(jnp.int32(0), memory),
        key=key,
    )


def mover(
    prunable: Prunable, drop: Score, grow: Score, shares: Shares, floor: int
) -> Callable[[View, Keep, Keep], Mask]:
    """`change(view, ones, replaced) -> mask`: one move; the arguments are `drop_and_grow`'s."""

    def change(view: View, ones: Keep, replaced: Keep) -> Mask:
        worth = _only(view.mask, drop(view))
        if shares == "global":
            stay = masks.select(worth, prunable, ones - replaced, floor)
            grown: Keep = replaced
        else:
            stay, grown = _by_leaf(view, worth, ones, replaced)
        new = masks.select(_only(_not(stay), grow(view)), prunable, grown)
        leaves = zip(masks.pick(stay, prunable), masks.pick(new, prunable), strict=True)
        return masks.put(stay, prunable, [a | b for a, b in leaves])

    def _by_leaf(view: View, worth: PyTree, ones: Keep, replaced: Keep) -> tuple[Mask, Keep]:
        if isinstance(ones, Mapping):
            kept, lost = ones, replaced
        else:  # all leaves are pruned together, then each replaces its part
            pruned = masks.select(worth, prunable, ones, floor)
            kept = masks.counts(pruned, prunable)
            each = jnp.stack([kept[path] for path in prunable])
            spare = jnp.maximum(each - floor, 0)
            parts = rules.divide(jnp.asarray(replaced), each, spare)
            lost = dict(zip(prunable, parts, strict=True))
        stay = masks.select(worth, prunable, {p: kept[p] - lost[p] for p in prunable})
        if not callable(shares):
            return stay, lost
        leaves = masks.pick(stay, prunable)
        size = {path: leaf.size for path, leaf in zip(prunable, leaves, strict=True)}
        room = jnp.stack([size[path] - kept[path] + lost[path] for path in prunable])
        total = sum(lost.values(), jnp.int32(0))
        parts = rules.divide(total, shares(view, prunable), room)
        return stay, dict(zip(prunable, parts, strict=True))

    return change


def check_plan(moves: MovePlan, prunable: Prunable) -> int:
    """The number of moves of a plan.

    Raises:
      ValueError: the plan does not hold two int`[moves]` for all leaves, or for each of them.
    """
    (number,) = check_leading("the plan of moves", moves, ("moves",))
    for name, field in moves._asdict().items():
        if isinstance(field, Mapping) and set(field) != set(prunable):
            raise ValueError(
                f"the plan of moves, {name}: has counts of {', '.join(field)}; the prunable leaves "
                f"are {', '.join(prunable)}"
            )
        for table in field.values() if isinstance(field, Mapping) else (field,):
            check_array(f"the plan of moves, {name}", table, (number,), int)
    return number


def _only(mask: Mask, scores: PyTree) -> PyTree:
    """The scores where the mask is True; -inf elsewhere."""
    return jax.tree.map(lambda keep, s: jnp.where(keep, s, -jnp.inf), mask, scores)


def _not(mask: Mask) -> Mask:
    return jax.tree.map(jnp.logical_not, mask)
