"""State spaces: what the bits of a walk stand for.

A search changes a vector of bits. A `Space` defines how that vector becomes a mask, and divides it
into segments: the leaves or unit groups whose counts are controlled.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Keep, Mask, Params, Prunable, PyTree, Scores, Wiring


class Space(NamedTuple):
    """A vector of `n` bits and its meaning.

    Attributes:
      names: the segments' names.
      shapes: the segments' shapes, from which allocations are computed: a leaf's shape, or
        `(units,)`.
      scope: `global`: ones move freely between segments; `layer`: each segment keeps its count;
        `pattern`: each group of inputs of an output keeps its count, see `patterns`.
      mask: `mask(bits[n]) -> Mask` over the parameters.
      bits: `bits(mask) -> bool[n]`, the inverse of `mask`; raises ValueError if its argument is not
        a mask of the parameters.
      pool: `pool(scores) -> float[n]`: the score of each bit, from a criterion's scores of the
        weights.
      group: the number of inputs in a group, for the scope `pattern`.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    scope: str
    mask: Callable[[Array], Mask]
    bits: Callable[[Mask], Array]
    pool: Callable[[Scores], Array]
    group: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of bits of each segment."""
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @property
    def size(self) -> int:
        """The number of bits, `n`."""
        return sum(self.sizes)

    @property
    def starts(self) -> tuple[int, ...]:
        """The index of each segment's first bit."""
        return tuple(int(s) for s in np.cumsum([0, *self.sizes[:-1]]))


SCOPES = GLOBAL, LAYER, PATTERN = ("global", "layer", "pattern")


def weights(params: Params, prunable: Prunable, scope: str = GLOBAL, group: int = 0) -> Space:
    """The space with one bit for each prunable weight; a segment is a leaf.

    Args:
      params: parameters, for their shapes.
      prunable: the leaves that are searched; the others stay dense.
      scope: see `Space`.
      group: the number of inputs in a group, 2 or more, for the scope `pattern`.

    Raises:
      ValueError: an unknown scope, or a group of fewer than 2 inputs or of more than a leaf has.

    >>> params = {"fc1": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}}
    >>> space = weights(params, ("fc1/kernel",))
    >>> space.size, space.names, space.shapes
    (6, ('fc1/kernel',), ((2, 3),))
    >>> space.mask(np.arange(6) < 2)["fc1"]["kernel"].tolist()
    [[True, True, False], [False, False, False]]
    """
    shapes = masks.shapes(params, prunable)
    for path, shape in shapes.items() if scope == PATTERN else ():
        inputs = int(np.prod(shape[:-1]))
        if not 2 <= group <= inputs:
            raise ValueError(f"group={group}: must be from 2 to the {inputs} inputs of {path}")

    def bits(mask: Mask) -> Array:
        masks.check_mask(mask, params)
        return masks.flatten(mask, prunable)

    def pool(scores: Scores) -> Array:
        masks.check_like(scores, params, "the scores", "the parameters")
        return masks.flatten(scores, prunable)

    return Space(
        names=prunable,
        shapes=tuple(shapes.values()),
        scope=_known(scope),
        mask=lambda bits: masks.unflatten(bits, params, prunable),
        bits=bits,
        pool=pool,
        group=group,
    )


def units(params: Params, wiring: Wiring, scope: str = "global") -> Space:
    """The space with one bit for each unit (filter or neuron); a segment is a group of the wiring.

    Switching a unit off removes its weights, bias, batch-norm scale and shift, and the input rows
    of the layers that read it (`masks.expand`). `bits` reads a unit as off if its column of the
    first producer's kernel is all False. A unit's score is the mean score of that column.

    Args:
      params: parameters, for their shapes.
      wiring: the groups that are searched.
      scope: `global` or `layer`.

    Raises:
      ValueError: another scope.

    >>> from jaxtickets.types import Feed, Units
    >>> params = {name: {"kernel": np.ones((2, 2))} for name in ("fc1", "out")}
    >>> group = Units("fc1", 2, producers=("fc1",), norms=(), consumers=(Feed("out", 1),))
    >>> mask = units(params, (group,)).mask(np.array([True, False]))
    >>> mask["fc1"]["kernel"].tolist(), mask["out"]["kernel"].tolist()
    ([[True, False], [True, False]], [[True, True], [False, False]])
    """
    if scope == PATTERN:
        raise ValueError("scope=pattern: applies to weights only, not to units")
    ends = np.cumsum([group.size for group in wiring])

    def mask(bits: Array) -> Mask:
        check_array("the bits", bits, (int(ends[-1]),), bool)
        parts = jnp.split(bits, ends[:-1])
        named = {group.name: part for group, part in zip(wiring, parts, strict=True)}
        return masks.expand(named, wiring, params)

    def columns(tree: PyTree, reduce: Callable[..., Array]) -> Array:
        kernels = masks.kernels(tree, [group.producers[0] for group in wiring])
        return jnp.concatenate([reduce(k, axis=tuple(range(k.ndim - 1))) for k in kernels])

    def bits(mask: Mask) -> Array:
        masks.check_mask(mask, params)
        return columns(mask, jnp.any)

    def pool(scores: Scores) -> Array:
        masks.check_like(scores, params, "the scores", "the parameters")
        return columns(scores, jnp.mean)

    return Space(
        names=tuple(group.name for group in wiring),
        shapes=tuple((group.size,) for group in wiring),
        scope=_known(scope),
        mask=mask,
        bits=bits,
        pool=pool,
    )


def choose(space: Space, scores: Array, keep: Keep, floor: int = 0) -> Array:
    """bool`[n]`: selects the highest of `scores[n]`, like `masks.select` with segments as leaves.

    In the scope `pattern`, the highest scores of each group are selected.

    Args:
      space: the state space.
      scores: float`[n]`, higher is kept first.
      keep: an integer over all segments, or segment -> integer. In the scope `pattern`, the integer
        (or the sum of the integers) must be one of `pattern_totals`.
      floor: the fewest ones in each segment when all segments are ranked together.

    >>> space = weights({"a": np.ones((1, 2)), "b": np.ones((1, 3))}, ("a", "b"))
    >>> scores = jnp.array([5.0, 1.0, 4.0, 2.0, 3.0])
    >>> choose(space, scores, 2).tolist()
    [True, False, True, False, False]
    >>> choose(space, scores, {"a": 0, "b": 2}).tolist()
    [False, False, True, False, True]
    """
    tree = named(space, scores)
    if space.scope == PATTERN:
        for name, part in tree.items():
            masks.check_scores(name, part)
        total = sum(keep.values()) if isinstance(keep, Mapping) else keep
        each = jnp.searchsorted(jnp.asarray(pattern_totals(space)), total)
        shaped = zip(tree.values(), space.shapes, strict=True)
        return jnp.concatenate([_highest(part, shape, space.group, each) for part, shape in shaped])
    chosen = masks.select(tree, space.names, keep, floor)
    return jnp.concatenate([chosen[name] for name in space.names])


def named(space: Space, values: Array) -> dict[str, Array]:
    """Splits `values[n]` by segment: segment name -> its part.

    >>> space = weights({"a": np.ones((1, 2)), "b": np.ones((1, 3))}, ("a", "b"))
    >>> {name: part.tolist() for name, part in named(space, np.arange(5)).items()}
    {'a': [0, 1], 'b': [2, 3, 4]}
    """
    check_array("the values", values, (space.size,))
    return dict(zip(space.names, jnp.split(values, space.starts[1:]), strict=True))


def segment(space: Space, index: Array) -> Array:
    """The segment of each bit index: int32, shaped like `index`.

    >>> space = weights({"a": np.ones((1, 2)), "b": np.ones((1, 3))}, ("a", "b"))
    >>> segment(space, np.arange(5)).tolist()
    [0, 0, 1, 1, 1]
    """
    later = jnp.asarray(space.starts[1:], jnp.int32)
    later = later.reshape(*[1] * index.ndim, -1)
    return jnp.sum(index[..., None] >= later, axis=-1, dtype=jnp.int32)


def counts(space: Space, bits: Array) -> Array:
    """int32`[segments]`: the number of ones in each segment.

    >>> space = weights({"a": np.ones((1, 2)), "b": np.ones((1, 3))}, ("a", "b"))
    >>> counts(space, np.array([True, False, True, True, False])).tolist()
    [1, 2]
    """
    check_array("the bits", bits, (space.size,), bool)
    parts = jnp.split(bits, space.starts[1:])
    return jnp.stack([jnp.sum(part, dtype=jnp.int32) for part in parts])


def _known(scope: str) -> str:
    if scope not in SCOPES:
        raise ValueError(f"unknown scope '{scope}'; there are {', '.join(SCOPES)}")
    return scope


def pattern_totals(space: Space) -> np.ndarray:
    """int64`[M + 1]`: the number of ones when each group of M inputs keeps 0, 1, ..., M.

    If M does not divide a leaf's inputs, the R inputs that remain keep `ceil(N R / M)` of each
    output.

    >>> space = weights({"w": np.ones((4, 3))}, ("w",), scope="pattern", group=2)
    >>> pattern_totals(space).tolist()  # two groups of two for each of three outputs
    [0, 6, 12]
    """
    each = np.arange(space.group + 1)
    total = np.zeros_like(each)
    for shape in space.shapes:
        inputs = int(np.prod(shape[:-1]))
        rest = inputs % space.group
        held = inputs // space.group * each + -(-each * rest // space.group)
        total += shape[-1] * held
    return total


def _highest(scores: Array, shape: tuple[int, ...], group: int, each: Array) -> Array:
    """bool`[n]`: selects the `each` highest of every group of inputs, from a leaf's `scores[n]`."""
    outputs = shape[-1]
    table = -scores.reshape(-1, outputs)
    table = jnp.where(jnp.isnan(table), jnp.inf, table)
    inputs = table.shape[0]
    rest = -inputs % group
    table = jnp.pad(table, ((0, rest), (0, 0)), constant_values=jnp.inf)  # padding ranks last
    table = table.reshape(-1, group, outputs)
    order = jnp.argsort(jnp.argsort(table, axis=1), axis=1)
    members = jnp.full(table.shape[0], group).at[-1].set(group - rest)
    most = -(-each * members // group)
    return (order < most[:, None, None]).reshape(-1, outputs)[:inputs].ravel()
