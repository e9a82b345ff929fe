"""The domain of a search: bits of weights, bits of units, or fields over either.

Every point stands for a mask with an exact count or, for fields of units, for the largest mask
within a budget of multiply-adds.
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
from jaxtickets.types import (
    Array,
    Key,
    Mask,
    Params,
    Prunable,
    PyTree,
    Scores,
    Split,
    Stats,
    Wiring,
)

POTENTIALS = ("fields", "unit_fields")
"""The granularities whose points are fields of potentials."""
GRANULARITIES = ("weights", "units", *POTENTIALS)


class SearchDomain(NamedTuple):
    """The domain of a search; static.

    Attributes:
      space: the bits that masks are made of; these are also the points, unless `fields` is given.
      fields: the space of fields, if points are fields; None if they are bits.
      units: whether the bits stand for units.
      costs: the multiply-adds of units, if fields of units keep a share of the multiply-adds; None
        if they keep a number of units.
    """

    space: Space
    fields: FieldSpace | None = None
    units: bool = False
    costs: Costs | None = None

    def pool(self, scores: Scores) -> Scores:
        """Turns scores of weights into scores of what fields rank: of units, or the same."""
        return spaces.named(self.space, self.space.pool(scores)) if self.units else scores


class SearchData(NamedTuple):
    """The data that a search may see: arrays, the same for all chains. Never test data.

    Attributes:
      scored: images (float, normalised) and labels that masks are scored on.
      training: raw images and labels for minibatches and training steps.
      validation: raw images and labels that choose among the chain's best masks.
    """

    scored: Split
    training: Split
    validation: Split


class ChainInputs(NamedTuple):
    """The inputs of one chain: arrays.

    Attributes:
      key: the chain's key.
      energy_key: the key of what the energy draws once for all masks, such as the order of its
        data.
      params, stats: the weights that masks select from, and their batch statistics.
      start: the first point; bool`[n]` where points are bits, else a `Field`.
      ticks: the step plans, `[steps]` each.
      features: the features of fields, see `fields.features`; `()` for bits.
      keep: the number of weights or units that a field keeps, an int32 scalar; or its share of the
        multiply-adds, a float32 scalar.
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
    """The search domain of a granularity and a scope.

    Args:
      granularity: one of `GRANULARITIES`.
      scope: the scope of bits, see `space.SCOPES`.
      params, prunable, wiring: the net's.
      features, sides, image: for fields, see `fields.space`.
      group: for patterns, see `space.weights`.
      costs: see `SearchDomain`.

    Raises:
      ValueError: `fields.space` or `spaces.units` refuses its arguments, or `costs` does not belong
        to these units or this granularity.

    >>> params = {"w": np.zeros((2, 3))}
    >>> bits = search_domain("weights", "global", params, ("w",), wiring=())
    >>> bits.space.size, bits.fields
    (6, None)
    >>> chance, inputs = ["chance"], ["input"]
    >>> over = search_domain("fields", "global", params, ("w",), (), features=chance, sides=inputs)
    >>> [side.name for side in over.fields.sides]
    ['w input']
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
    """The mask of a point of a chain; a field keeps at least `floor` in each segment.

    Args:
      where: the search domain.
      floor: the fewest weights or units in each segment.
      row: the chain's inputs.
      point: the point.

    >>> params, key = {"w": jnp.zeros((1, 3))}, jax.random.key(0)
    >>> domain = search_domain("weights", "global", params, ("w",), wiring=())
    >>> chain = ChainInputs(key, key, params, {}, start=(), ticks=())
    >>> mask_at(domain, 0, chain, jnp.array([True, False, True]))["w"].tolist()
    [[True, False, True]]
    """
    if where.fields is None:
        return where.space.mask(point)
    if not where.units:
        return fields.mask(where.fields, row.features, row.keep, floor, point)
    tree = fields.score(where.fields, row.features, point)
    scores = jnp.concatenate(masks.pick(tree, where.space.names))
    if where.costs is None:
        return where.space.mask(spaces.choose(where.space, scores, row.keep, floor))
    return where.space.mask(budget.within(where.costs, scores, row.keep, floor))
