"""Moves that drop some kept weights and grow some pruned ones, with exact counts.

Most methods of dynamic sparse training are this move with other rules, shares and counts; each has
its file and says which. A move has two parts. The first prunes to the plan's next count, if that is
lower. The second replaces a number of weights: those with the lowest drop scores are dropped, and
as many of those with the highest grow scores are grown, among them what was just dropped. A weight
that is dropped and grown in the same move keeps its value and its moments. Grow scores see the mask
and the parameters after the drop.
"""

import math
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
to its share, as far as it has room. In the last two, a leaf's count isn't fixed, so that the plan
must have one count for all leaves."""


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
      floor: the number of kept weights that must not be replaced, in each leaf or over all; a leaf
        that begins and ends below it is one that is smaller.

    Raises:
      ValueError: an argument is out of range.

    >>> moves = plan(moves=4, begin=100, end=20, fraction=0.5)
    >>> moves.ones.tolist(), moves.replaced.tolist()
    ([54, 30, 21, 20], [23, 7, 1, 0])
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

    def counts(begin: int, end: int, least: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        if not max(least, 1) <= end <= begin:
            raise ValueError(
                f"{name}begin={begin}, end={end}, floor={floor}: must be max(floor, 1) <= end <= "
                "begin"
            )
        ones = np.round(end + (begin - end) * schedules.gradual(t, pruned_by)).astype(np.int32)
        share = np.floor(ones * replaced + 1e-9)
        return ones, np.minimum(share, ones - least).astype(np.int32)

    if not isinstance(begin, Mapping) and not isinstance(end, Mapping):
        return MovePlan(*counts(int(begin), int(end), floor, ""))
    if not isinstance(begin, Mapping) or not isinstance(end, Mapping) or set(begin) != set(end):
        raise ValueError("begin and end: must be two numbers, or have counts of the same leaves")
    each = {}
    for path in end:
        first, last = int(begin[path]), int(end[path])
        least = min(floor, first) if first == last else floor  # a small leaf is whole
        each[path] = counts(first, last, least, f"{path}: ")
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
      floor: the fewest weights that each leaf keeps, of which none are replaced where all leaves
        are pruned together; smaller leaves are kept whole.
      key: for random choices.
      before, after: see `base.sparse`; the method's state is a `MoveState`.
      memory: the initial `MoveState.memory`.

    Raises:
      ValueError: the plan does not hold two int`[moves]` for all leaves or for each of them, or it
        has counts for each leaf where these aren't fixed, see `Shares`; or it keeps more weights
        than there are, or fewer than the floors need (not detected under tracing); or `every` or
        `floor` is out of range.

    >>> params, gradient = {"w": jnp.array([1.0, 2.0, 3.0, 0.0])}, {"w": jnp.arange(4.0)}
    >>> mask, moves = {"w": params["w"] != 0}, MovePlan(ones=np.array([2]), replaced=np.array([1]))
    >>> optimizer = drop_and_grow(optax.sgd(0.1), mask, ("w",), moves, every=100)
    >>> _, state = optimizer.update(gradient, optimizer.init(params), params, move=True)
    >>> state.mask["w"].tolist()  # 1.0 is pruned, and 2.0 replaced
    [False, False, True, True]
    """
    if every < 1 or floor < 0:
        raise ValueError(f"every={every}, floor={floor}: must be 1 or more, and 0 or more")
    number = _check_plan(moves, masks.shapes(mask, prunable), floor)
    if isinstance(moves.ones, Mapping) and shares != "leaf":
        raise ValueError("the plan has counts of each leaf, which must be one count for all here")
    moves = jax.tree.map(jnp.asarray, moves)
    change = _mover(prunable, drop, grow, shares, floor)

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


def _mover(
    prunable: Prunable, drop: Score, grow: Score, shares: Shares, floor: int
) -> Callable[[View, Keep, Keep], Mask]:
    """`change(view, ones, replaced) -> mask`: one move; the arguments are `drop_and_grow`'s."""

    def change(view: View, ones: Keep, replaced: Keep) -> Mask:
        keys = (None, None) if view.key is None else jax.random.split(view.key)
        worth = _only(view.mask, drop(view._replace(key=keys[0])))
        if shares == "global":
            floors = masks.floor_of(floor, masks.shapes(view.mask, prunable))
            grown: Keep = jnp.minimum(replaced, ones - sum(floors.values()))
            stay = masks.select(worth, prunable, ones - grown, floor)
        else:
            stay, grown = _by_leaf(view, worth, ones, replaced)
        left = view._replace(mask=stay, params=masks.apply(stay, view.params), key=keys[1])
        new = masks.select(_only(_not(stay), grow(left)), prunable, grown)
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


def _check_plan(moves: MovePlan, shapes: Mapping[str, tuple[int, ...]], floor: int = 0) -> int:
    """The number of moves of a plan.

    Args:
      moves: the plan.
      shapes: path -> shape of each prunable leaf.
      floor: the fewest weights that each leaf keeps; smaller leaves are kept whole.

    Raises:
      ValueError: the plan does not hold two int`[moves]` for all leaves, or for each of them, or
        they are out of range (not detected under tracing).
    """
    (number,) = check_leading("the plan of moves", moves, ("moves",))
    for name, field in moves._asdict().items():
        if isinstance(field, Mapping) and set(field) != set(shapes):
            raise ValueError(
                f"the plan of moves, {name}: has counts of {', '.join(field)}; the prunable leaves "
                f"are {', '.join(shapes)}"
            )
        for table in field.values() if isinstance(field, Mapping) else (field,):
            check_array(f"the plan of moves, {name}", table, (number,), int)
    ones, replaced = moves
    if isinstance(ones, Mapping) != isinstance(replaced, Mapping):
        raise ValueError("the plan of moves: only one of its fields has counts of each leaf")
    floors = masks.floor_of(floor, shapes)
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    if isinstance(ones, Mapping):
        for path in shapes:
            _check_counts(path, ones[path], replaced[path], floors[path], sizes[path])
    else:
        _check_counts("all leaves", ones, replaced, sum(floors.values()), sum(sizes.values()))
    return number


def _check_counts(where: str, ones: Array, replaced: Array, least: int, most: int) -> None:
    if isinstance(ones, jax.core.Tracer) or isinstance(replaced, jax.core.Tracer):
        return
    ones, replaced = np.asarray(ones), np.asarray(replaced)
    if ones.min() < least or ones.max() > most:
        raise ValueError(
            f"the plan of moves keeps {ones.min()} to {ones.max()} of {where}: must be from "
            f"{least}, what floors need, to {most}"
        )
    if np.any((replaced < 0) | (replaced > ones)):
        raise ValueError(f"the plan of moves replaces more weights of {where} than it keeps")


def _only(mask: Mask, scores: PyTree) -> PyTree:
    """The scores where the mask is True, NaN the least of them; -inf elsewhere."""

    def leaf(keep: Array, s: Array) -> Array:
        least = jnp.finfo(s.dtype).min
        return jnp.where(keep, jnp.where(s > least, s, least), -jnp.inf)

    return jax.tree.map(leaf, mask, scores)


def _not(mask: Mask) -> Mask:
    return jax.tree.map(jnp.logical_not, mask)
