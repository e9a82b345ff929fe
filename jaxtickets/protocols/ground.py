"""What the chains of a search walk over: bits of weights, bits of units, or fields.

Whatever a point is, it stands for a mask of an exact count; `space` says what its bits are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxtickets.search import annealing, fields
from jaxtickets.search import space as spaces
from jaxtickets.search.fields import Space as FieldSpace
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Key, Mask, Params, Prunable, PyTree, Scores, Stats, Wiring

GRANULARITIES = ("weights", "units", "fields")


class Ground(NamedTuple):
    """Where chains walk; static.

    Attributes:
      space: the bits that masks are made of; points are these, unless there are fields.
      fields: the fields that points are; None where they are bits.
    """

    space: Space
    fields: FieldSpace | None = None


class Row(NamedTuple):
    """What one chain is given: arrays.

    Attributes:
      key: the chain's key.
      params, stats: the weights that masks select from.
      start: the first point.
      ticks: the plan, `[steps]` each.
      features: of fields, see `fields.features`.
      keep: int32, how many weights a field keeps.
    """

    key: Key
    params: Params
    stats: Stats
    start: PyTree
    ticks: annealing.Tick
    features: tuple[Scores, ...] = ()
    keep: Array = np.int32(0)


def ground(
    granularity: str,
    scope: str,
    params: Params,
    prunable: Prunable,
    wiring: Wiring,
    features: Sequence[str] = (),
    sides: Sequence[str] = (),
    image: tuple[int, ...] = (),
    group: int = 0,
) -> Ground:
    """The ground that the words name.

    Args:
      granularity: one of `GRANULARITIES`.
      scope: of bits, see `space.SCOPES`.
      params, prunable, wiring: the net.
      features, sides, image: of fields, see `fields.space`.
      group: of patterns, see `space.weights`.

    Raises:
      ValueError: fields or units can't be what is asked for.
    """
    if granularity == "units":
        return Ground(spaces.units(params, wiring, scope))
    bits = spaces.weights(params, prunable, scope, group)
    if granularity == "fields":
        return Ground(bits, fields.space(params, prunable, features, sides, image))
    return Ground(bits)


def mask_at(where: Ground, floor: int, row: Row, point: PyTree) -> Mask:
    """The mask of a point of the row's chain; a field keeps at least `floor` in each leaf."""
    if where.fields is None:
        return where.space.mask(point)
    return fields.mask(where.fields, row.features, row.keep, floor, point)
