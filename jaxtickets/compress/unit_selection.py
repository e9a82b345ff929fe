"""Which units stay: masks over units from their scores, by layer, over all layers, to a budget.

Host arithmetic on counts; who stays is `masks.select`'s choice, exact and with ties broken the same
way each time. Groups may share units (see `graph`): such a unit has the mean of its scores, is
counted in the first of its groups alone, and stays or goes in all of them.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import allocation, masks
from jaxtickets.compress.graph import Graph, kept
from jaxtickets.types import Array, Key, UnitMask

UnitScores = Mapping[str, Array]
"""`{group: float[units]}`, as criteria of units give them; higher is kept first."""


class Rule(Protocol):
    """`rule(graph, scores, density, floor, multiple) -> units`: `by_layer` or `over_layers`."""

    def __call__(
        self, graph: Graph, scores: UnitScores, density: float, floor: int = 0, multiple: int = 1
    ) -> dict[str, np.ndarray]:
        """The units that stay."""
        ...


def by_layer(
    graph: Graph,
    scores: UnitScores,
    density: float | Mapping[str, float],
    floor: int = 0,
    multiple: int = 1,
) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the best of each group, `round(density * units)`, half to even.

    Args:
      graph: of the net.
      scores: of all groups.
      density: in (0, 1], one for all groups or one for each.
      floor: the least that a group keeps; a smaller one is kept whole.
      multiple: counts are rounded to the nearest multiple of it (half up) that isn't below the
        floor, and to the whole group above that.

    Raises:
      ValueError: a group is left with nothing (it is named), scores are missing or NaN, or a
        density is outside (0, 1].
    """
    found = best_of_each(graph, scores, density, floor, multiple)
    return {name: np.asarray(mask) for name, mask in found.items()}


def best_of_each(
    graph: Graph,
    scores: UnitScores,
    density: float | Mapping[str, float],
    floor: int = 0,
    multiple: int = 1,
) -> dict[str, jax.Array]:
    """`by_layer`, with scores that may be traced (NaN then ranks last)."""
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
    """`{group: bool[units]}`: the best of all units ranked together, `round(density * units)`.

    One threshold for all layers, as in Liu et al., "Learning efficient convolutional networks
    through network slimming", 2017; after that, each group's count is rounded.

    Args:
      graph, scores, floor, multiple: as for `by_layer`.
      density: in (0, 1], of all units together.

    Raises:
      ValueError: as for `by_layer`, and if the floors alone need more.
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
) -> dict[str, np.ndarray]:
    """The largest choice of `rule` that costs no more than `budget`, by bisection on its density.

    Args:
      rule: `by_layer` or `over_layers`.
      graph, scores, multiple: as for `by_layer`.
      floor: likewise; 0 is as 1, since no choice may empty a layer.
      cost: of a choice, such as `multiply_adds`; it doesn't fall as units are added.
      budget: the most that it may cost.

    Raises:
      ValueError: as `rule` does, or the floors alone cost more.
    """
    ranked = _ranked(graph, scores)
    total, floor = sum(map(len, ranked.values())), max(floor, 1)
    low = sum(min(floor, len(values)) for values in ranked.values())
    best = rule(graph, scores, low / total, floor, multiple)
    if cost(best) > budget:
        raise ValueError(f"a budget of {budget} can't be kept: the least choice costs {cost(best)}")
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
    """Random units, as many in each group as stay: of those that no group before it has.

    Args:
      key: of the draw.
      graph: of the net.
      units: `{group: bool[units]}`; a unit that groups share stays where one of them keeps it.

    Returns:
      `{group: bool[units]}`, the same in all groups that share a unit.
    """
    stays, own = kept(graph, units), _own(graph)
    for one, mine in zip(jax.random.split(key, len(own)), own.values(), strict=True):
        stays[mine] = jax.random.permutation(one, stays[mine])
    return {name: stays[places] for name, places in graph.units.items()}


def multiply_adds(graph: Graph, dense: Mapping[str, int], units: UnitMask) -> int:
    """The multiply-adds of one image that are left once the other units are gone.

    Args:
      graph: of the net.
      dense: leaf -> its multiply-adds in the whole net (`nets.multiply_adds`).
      units: which units stay.
    """
    stays, total = kept(graph, units), 0
    for path, count in dense.items():
        for places in graph.axes.get(f"params/{path}", {}).values():
            count = count * int(stays[places].sum()) // len(places)
        total += count
    return total


def _ranked(graph: Graph, scores: UnitScores) -> dict[str, jax.Array]:
    """Group -> the mean scores of the units that no group before it has; groups without are out."""
    count = 1 + max(int(places.max()) for places in graph.units.values())
    sums, groups = jnp.zeros(count), np.zeros(count, "f")
    for name, places in graph.units.items():
        if np.shape(scores.get(name, 0)) != places.shape:
            raise ValueError(f"{name} has {len(places)} units: there must be as many scores")
        sums = sums.at[places].add(jnp.asarray(scores[name], jnp.float32))
        groups[places] += 1
    return {name: sums[mine] / groups[mine] for name, mine in _own(graph).items()}


def _own(graph: Graph) -> dict[str, np.ndarray]:
    """Group -> its units that no group before it has; groups without are out."""
    own, seen = {}, np.empty(0, int)
    for name, places in graph.units.items():
        if len(new := places[~np.isin(places, seen)]):
            own[name] = new
        seen = np.concatenate([seen, new])
    return own


def _best(
    graph: Graph,
    ranked: Mapping[str, jax.Array],
    counts: Mapping[str, int],
    floor: int,
    multiple: int,
) -> dict[str, jax.Array]:
    """The masks that keep these counts, rounded, of each group's own units."""
    keep = {}
    for name, values in ranked.items():
        least = max(min(floor, len(values)), counts[name] > 0)
        steps = max((2 * counts[name] + multiple) // (2 * multiple), -(-least // multiple))
        keep[name] = min(steps * multiple, len(values))
        if keep[name] == 0:
            raise ValueError(f"no unit is left in {name}: raise the density or set a floor")
    chosen = masks.select(ranked, tuple(ranked), keep)
    stays = jnp.zeros(1 + max(int(places.max()) for places in graph.units.values()), bool)
    for name, mine in _own(graph).items():
        stays = stays.at[mine].set(chosen[name])
    return {name: stays[places] for name, places in graph.units.items()}
