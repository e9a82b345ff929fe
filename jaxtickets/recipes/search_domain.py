"""What the chains of a search walk over: bits of weights, bits of units, or fields over either.

Whatever a point is, it stands for a mask of an exact count, or, of units, for the most that a
budget of multiply-adds allows; `space` says what its bits are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress import budget
from jaxtickets.compress.budget import Costs
from jaxtickets.search import annealing, fields
from jaxtickets.search import space as spaces
from jaxtickets.search.fields import Space as FieldSpace
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Key, Mask, Params, Prunable, PyTree, Scores, Stats, Wiring

POTENTIALS = ("fields", "unit_fields")
"""Where points are potentials."""
GRANULARITIES = ("weights", "units", *POTENTIALS)


class SearchDomain(NamedTuple):
    """Where chains walk; static.

    Attributes:
      space: the bits that masks are made of; points are these, unless there are fields.
      fields: the fields that points are; None where they are bits.
      units: whether the bits are of units.
      costs: of fields of units, if they keep a share of the multiply-adds; None: of the units.
    """

    space: Space
    fields: FieldSpace | None = None
    units: bool = False
    costs: Costs | None = None

    def pool(self, scores: Scores) -> Scores:
        """What scores of weights say of what fields are over."""
        return spaces.named(self.space, self.space.pool(scores)) if self.units else scores


class ChainInputs(NamedTuple):
    """What one chain is given: arrays.

    Attributes:
      key: the chain's key.
      energy_key: of what the energy draws once for all masks, such as the order of its data.
      params, stats: the weights that masks select from.
      start: the first point.
      ticks: the plan, `[steps]` each.
      features: of fields, see `fields.features`.
      keep: int32, how many weights or units a field keeps; float32 the share of multiply-adds.
    """

    key: Key
    energy_key: Key
    params: Params
    stats: Stats
    start: PyTree
    ticks: annealing.StepPlan
    features: tuple[Scores, ...] = ()
    keep: Array = np.int32(0)


def search_domain(
    granularity: str,
    scope: str,
    params: Params,
    prunable: Prunable,
    wiring: Wiring,
    features: Sequence[str] = (),
    sides: Sequence[str] = (),
    image: tuple[int, ...] = (),
    group: int = 0,
    costs: Costs | None = None,
) -> SearchDomain:
    """The ground that the words name.

    Args:
      granularity: one of `GRANULARITIES`.
      scope: of bits, see `space.SCOPES`.
      params, prunable, wiring: the net.
      features, sides, image: of fields, see `fields.space`.
      group: of patterns, see `space.weights`.
      costs: see `SearchDomain`.

    Raises:
      ValueError: fields or units can't be what is asked for, or costs aren't of these units.
    """
    if costs is not None and granularity != "unit_fields":
        raise ValueError(f"granularity={granularity}: a budget of multiply-adds needs unit_fields")
    if granularity == "units":
        return SearchDomain(spaces.units(params, wiring, scope), units=True)
    if granularity == "unit_fields":
        of_units = spaces.units(params, wiring)
        if costs is not None and costs.names != of_units.names:
            raise ValueError(f"costs of {costs.names}, where the units are {of_units.names}")
        over = fields.of_units(of_units.names, of_units.sizes, features)
        return SearchDomain(of_units, over, units=True, costs=costs)
    bits = spaces.weights(params, prunable, scope, group)
    if granularity == "fields":
        return SearchDomain(bits, fields.space(params, prunable, features, sides, image))
    return SearchDomain(bits)


def mask_at(where: SearchDomain, floor: int, row: ChainInputs, point: PyTree) -> Mask:
    """The mask of a point of the row's chain; a field keeps at least `floor` in each segment."""
    if where.fields is None:
        return where.space.mask(point)
    if not where.units:
        return fields.mask(where.fields, row.features, row.keep, floor, point)
    tree = fields.score(where.fields, row.features, point)
    scores = jnp.concatenate(masks.pick(tree, where.space.names))
    if where.costs is None:
        return where.space.mask(spaces.choose(where.space, scores, row.keep, floor))
    return where.space.mask(budget.within(where.costs, scores, row.keep, floor))
