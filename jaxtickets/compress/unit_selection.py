"""Selection of units from their scores: by layer, over all layers, or to a budget.

Counts are computed on the host; `masks.select` selects the units, with exact counts and
deterministic ties. Groups may share units (see `graph`). A shared unit has the mean of its scores,
counts only in the first of its groups, and is kept or removed in all of them.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import allocation, masks
from jaxtickets.compress.graph import Graph, along, kept
from jaxtickets.types import Array, Key, UnitMask

UnitScores = Mapping[str, Array]
"""`{group: float[units]}`, the scores of a criterion of units; higher is kept first."""


class Rule(Protocol):
    """`rule(graph, scores, density, floor, multiple) -> units`: `by_layer` or `over_layers`."""

    def __call__(
        self, graph: Graph, scores: UnitScores, density: float, floor: int = 0, multiple: int = 1
    ) -> dict[str, np.ndarray]:
        """`{group: bool[units]}`: the units that are kept."""
        ...


def by_layer(
    graph: Graph,
    scores: UnitScores,
    density: float | Mapping[str, float],
    floor: int = 0,
    multiple: int = 1,
) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the best `round(density * units)` of each group, half to even.

    Args:
      graph: the net's channel graph.
      scores: the scores of all groups.
      density: in (0, 1], for all groups or for each.
      floor: the fewest units in each group; smaller groups are kept whole.
      multiple: counts are rounded to the nearest multiple of it (half up) that is not below the
        floor; a count above the group's size keeps the whole group.

    Raises:
      ValueError: a group would be left with no unit (the message names it), scores are missing or
        NaN, or a density is outside (0, 1].

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> scores = {"fc1": np.array([4.0, 1.0, 3.0, 2.0]), "fc2": np.array([9.0, 0.2, 0.3])}
    >>> units = by_layer(traced, scores, density=0.5)
    >>> {name: mask.tolist() for name, mask in units.items()}
    {'fc1': [True, False, True, False], 'fc2': [True, False, True]}
    """
    found = best_of_each(graph, scores, density, floor, multiple)
    return {name: np.asarray(mask) for name, mask in found.items()}


def best_of_each(
    graph: Graph,
    scores: UnitScores,
    density: float | Mapping[str, float],
    floor: int = 0,
    multiple: int = 1,
) -> dict[str, Array]:
    """Like `by_layer`, but the scores may be traced (NaN then ranks last).

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> scores = {"fc1": np.array([4.0, 1.0, 3.0, 2.0]), "fc2": np.array([9.0, 0.2, 0.3])}
    >>> units = best_of_each(traced, scores, density=0.5)
    >>> {name: mask.tolist() for name, mask in units.items()}
    {'fc1': [True, False, True, False], 'fc2': [True, False, True]}
    """
    ranked = _ranked(graph, scores)
    counts = {}
    for name, values in ranked.items():
        share = density[name] if isinstance(density, Mapping) else density
        if not 0 < share <= 1:
            raise ValueError(f"density {share} of {name} is outside (0, 1]")
        counts[name] = round(share * len(values))
    return _best(graph, ranked, counts, floor, multiple)


def over_layers(
    graph: Graph, scores: UnitScores, density: float, floor: int = 0, multiple: int = 1
) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the best `round(density * units)` of all units, ranked together.

    One threshold for all layers, as in Liu et al., "Learning efficient convolutional networks
    through network slimming", 2017. The counts of the groups are rounded afterwards.

    Args:
      graph, scores, floor, multiple: as in `by_layer`.
      density: in (0, 1], of all units together.

    Raises:
      ValueError: as in `by_layer`, or the floors alone need more units.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> scores = {"fc1": np.array([4.0, 1.0, 3.0, 2.0]), "fc2": np.array([9.0, 0.2, 0.3])}
    >>> units = over_layers(traced, scores, density=4 / 7)
    >>> {name: mask.tolist() for name, mask in units.items()}
    {'fc1': [True, False, True, True], 'fc2': [True, False, False]}
    """
    ranked = _ranked(graph, scores)
    total = allocation.global_({name: v.shape for name, v in ranked.items()}, density, floor)
    chosen = masks.select(ranked, tuple(ranked), total, floor)
    counts = {name: int(np.sum(mask)) for name, mask in chosen.items()}
    found = _best(graph, ranked, counts, floor, multiple)
    return {name: np.asarray(mask) for name, mask in found.items()}


def to_budget(
    rule: Rule,
    graph: Graph,
    scores: UnitScores,
    cost: Callable[[UnitMask], float],
    budget: float,
    floor: int = 1,
    multiple: int = 1,
    unit: str = "multiply-adds",
) -> dict[str, np.ndarray]:
    """The largest selection of `rule` within a budget, by bisection on its density.

    Args:
      rule: `by_layer` or `over_layers`.
      graph, scores, multiple: as in `by_layer`.
      floor: as in `by_layer`, but at least 1, because no layer may be emptied.
      cost: the cost of a selection, such as `multiply_adds`; it must not decrease as units are
        added.
      budget: the largest cost.
      unit: the unit of the cost, for the error message.

    Raises:
      ValueError: as in `rule`, or the floors alone exceed the budget.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> scores = {"fc1": np.array([4.0, 1.0, 3.0, 2.0]), "fc2": np.array([9.0, 0.2, 0.3])}
    >>> dense = nets.multiply_adds(net, (2, 2, 1))  # 16, 12 and 6
    >>> cost = lambda units: multiply_adds(traced, dense, units)
    >>> units = to_budget(by_layer, traced, scores, cost, budget=17)
    >>> {name: mask.tolist() for name, mask in units.items()}
    {'fc1': [True, False, True, False], 'fc2': [True, False, True]}
    >>> cost(units)
    16
    """
    ranked = _ranked(graph, scores)
    total, floor = sum(map(len, ranked.values())), max(floor, 1)
    low = sum(min(floor, len(values)) for values in ranked.values())
    best = rule(graph, scores, low / total, floor, multiple)
    if (least := cost(best)) > budget:
        raise ValueError(
            f"the smallest selection takes {least} {unit}, but the budget allows {budget}: raise it"
        )
    high = total + 1
    while high - low > 1:
        middle = (low + high) // 2
        units = rule(graph, scores, middle / total, floor, multiple)
        if cost(units) <= budget:
            low, best = middle, units
        else:
            high = middle
    return best


def shuffled(key: Key, graph: Graph, units: UnitMask) -> dict[str, np.ndarray]:
    """Random units, as many in each group as `units` keeps.

    The count of a group is that of its own units, which no earlier group has.

    Args:
      key: consumed.
      graph: the net's channel graph.
      units: `{group: bool[units]}`; a shared unit is kept if one of its groups keeps it.

    Returns:
      `{group: bool[units]}`, equal in all groups that share a unit.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> units = {"fc1": np.array([True, True, False, False]), "fc2": np.array([True, False, False])}
    >>> mixed = shuffled(jax.random.key(0), traced, units)
    >>> {name: int(mask.sum()) for name, mask in mixed.items()}
    {'fc1': 2, 'fc2': 1}
    """
    stays, own = kept(graph, units), _own(graph)
    for one, mine in zip(jax.random.split(key, len(own)), own.values(), strict=True):
        stays[mine] = jax.random.permutation(one, stays[mine])
    return {name: stays[places] for name, places in graph.units.items()}


def multiply_adds(graph: Graph, dense: Mapping[str, int], units: UnitMask) -> int:
    """The multiply-adds of one image after the other units are removed.

    Args:
      graph: the net's channel graph.
      dense: leaf -> its multiply-adds in the whole net (`nets.multiply_adds`).
      units: the units that are kept.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> units = {"fc1": np.array([True, True, False, False])}
    >>> dense = nets.multiply_adds(net, (2, 2, 1))
    >>> dense, multiply_adds(traced, dense, units)
    ({'fc1/kernel': 16, 'fc2/kernel': 12, 'out/kernel': 6}, 20)
    """
    stays, total = kept(graph, units), 0
    for path, count in dense.items():
        for places in graph.axes.get(f"params/{path}", {}).values():
            count = count * int(along(stays, places).sum()) // len(places)
        total += count
    return total


def _ranked(graph: Graph, scores: UnitScores) -> dict[str, Array]:
    """Group -> the mean scores of its own units; groups without own units are left out."""
    for name, places in graph.units.items():
        if np.shape(scores.get(name, 0)) != places.shape:
            raise ValueError(f"{name} has {len(places)} units: it needs one score for each")
    ones = {name: np.ones(len(places)) for name, places in graph.units.items()}
    sums, groups = _added(graph, scores, graph.units), _added(graph, ones, graph.units)
    return {name: sums[mine] / groups[mine] for name, mine in _own(graph).items()}


def _added(graph: Graph, values: Mapping[str, Array], at: Mapping[str, np.ndarray]) -> Array:
    """float32`[units]`: the sum of the values at each unit; on the host, unless one is traced."""
    count = 1 + max(int(places.max()) for places in graph.units.values())
    if any(isinstance(values[name], jax.core.Tracer) for name in at):
        traced = jnp.zeros(count, "f")
        for name, places in at.items():
            traced = traced.at[places].add(jnp.asarray(values[name], "f"))
        return traced
    sums = np.zeros(count, "f")
    for name, places in at.items():
        sums[places] += np.asarray(values[name], "f")
    return sums


def _own(graph: Graph) -> dict[str, np.ndarray]:
    """Group -> its units that no earlier group has; groups without such units are left out."""
    own, seen = {}, np.empty(0, int)
    for name, places in graph.units.items():
        if len(new := places[~np.isin(places, seen)]):
            own[name] = new
        seen = np.concatenate([seen, new])
    return own


def _best(
    graph: Graph,
    ranked: Mapping[str, Array],
    counts: Mapping[str, int],
    floor: int,
    multiple: int,
) -> dict[str, Array]:
    """The masks that keep the rounded counts of each group's own units."""
    keep = {}
    for name, values in ranked.items():
        least = max(min(floor, len(values)), counts[name] > 0)
        steps = max((2 * counts[name] + multiple) // (2 * multiple), -(-least // multiple))
        keep[name] = min(steps * multiple, len(values))
        if keep[name] == 0:
            raise ValueError(f"no unit is left in {name}: raise the density or set a floor")
    chosen = masks.select(ranked, tuple(ranked), keep)
    stays = _added(graph, chosen, _own(graph)) > 0
    return {name: stays[places] for name, places in graph.units.items()}
