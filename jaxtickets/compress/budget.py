"""Selection of units within a budget of multiply-adds, as traceable array code.

`unit_selection.to_budget` selects once, on the host; this version runs at every step of a search
and can be batched. A layer with `m_l` multiply-adds in the whole net, when `n_g` of the `N_g` units
of each group g are kept, costs

    m_l · Π_axes (1 - Σ_g r_lag (1 - n_g / N_g)),

where `r_lag` is the share of the units of g in the layer's axis a (inputs, outputs).
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.compress.graph import Graph
from jaxtickets.types import Array

SLACK = 1e-6
"""The margin of a budget for float32 rounding, as a share of the whole net."""


class Costs(NamedTuple):
    """The costs of a net's layers as functions of the kept units; static.

    Attributes:
      names: the names of the groups.
      layers: float32`[layers]`, each layer's share of the whole net's multiply-adds.
      axes: float32`[layers, 2, groups]`, the share of a group's units in each axis of a layer,
        inputs and outputs in any order; zeros for an axis without removable units.
      sizes: the number of units of each group.
    """

    names: tuple[str, ...]
    layers: np.ndarray
    axes: np.ndarray
    sizes: tuple[int, ...]


def costs(graph: Graph, dense: Mapping[str, int]) -> Costs:
    """The costs of a net's layers, with groups in the order of `graph.wiring`.

    Args:
      graph: the net's channel graph.
      dense: leaf -> its multiply-adds in the whole net (`nets.multiply_adds`).

    Raises:
      ValueError: groups share units, so that their counts do not determine a cost.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> found = costs(traced, nets.multiply_adds(net, (2, 2, 1)))
    >>> found.sizes, [round(float(share), 2) for share in found.layers]  # 16, 12 and 6 of 34
    ((4, 3), [0.47, 0.35, 0.18])
    """
    owner: dict[int, int] = {}
    for at, group in enumerate(graph.wiring):
        for unit in graph.units[group.name].tolist():
            if unit in owner:
                raise ValueError(f"{group.name} shares units with {graph.wiring[owner[unit]].name}")
            owner[unit] = at
    axes = np.zeros((len(dense), 2, len(graph.wiring)))
    for path, of_layer in zip(dense, axes, strict=True):
        read = graph.axes.get(f"params/{path}", {}).values()
        for of_axis, units in zip(of_layer, read, strict=False):
            for unit in units.tolist():
                if unit in owner:
                    of_axis[owner[unit]] += 1
            of_axis /= len(units)
    total = sum(dense.values())
    shares = np.array([count / total for count in dense.values()], np.float32)
    names = tuple(group.name for group in graph.wiring)
    return Costs(names, shares, axes.astype("f"), tuple(group.size for group in graph.wiring))


def share(costs: Costs, counts: Array) -> Array:
    """float32 scalar: the share of the multiply-adds that remains with `counts[groups]` units.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> found = costs(traced, nets.multiply_adds(net, (2, 2, 1)))
    >>> round(float(share(found, np.array([2, 3]))), 3)  # 8 + 6 + 6 of 34
    0.588
    """
    gone = 1 - counts / jnp.asarray(costs.sizes, jnp.float32)
    left = 1 - jnp.sum(costs.axes * gone[None, None, :], axis=-1)
    return jnp.sum(costs.layers * jnp.prod(left, axis=-1))


def least(costs: Costs, floor: int) -> float:
    """The share that remains when every group keeps its floor, at least one unit.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> found = costs(traced, nets.multiply_adds(net, (2, 2, 1)))
    >>> round(least(found, floor=1), 3)  # 4 + 1 + 2 of 34
    0.206
    """
    return float(share(costs, jnp.array(_floors(costs, floor))))


def within(costs: Costs, scores: Array, budget: Array, floor: int = 1) -> Array:
    """bool`[units]`: the highest scores whose units fit into the budget.

    Each group's first `floor` units are taken first, then units in the order of their scores, until
    the next one does not fit.

    Args:
      costs: the net's costs.
      scores: float`[units]`, group after group; higher is kept first.
      budget: in (0, 1], the share of the multiply-adds; at least `least(costs, floor)`.
      floor: the fewest units in each group; smaller groups are kept whole. 0 means 1, because no
        layer may be emptied.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> found = costs(traced, nets.multiply_adds(net, (2, 2, 1)))
    >>> scores = jnp.array([4.0, 1.0, 3.0, 2.0, 9.0, 5.0, 6.0])
    >>> within(found, scores, budget=20.5 / 34).tolist()  # the last two of fc1 do not fit
    [True, False, True, False, True, True, True]
    """
    floors, starts = _floors(costs, floor), np.cumsum([0, *costs.sizes])[:-1]
    parts = jnp.split(scores, starts[1:].tolist())
    first = [
        jnp.argsort(jnp.argsort(-part)) < least for part, least in zip(parts, floors, strict=True)
    ]
    order = jnp.argsort(jnp.where(jnp.concatenate(first), -jnp.inf, -scores))
    groups = np.repeat(np.arange(len(costs.sizes)), costs.sizes)
    counts = jnp.cumsum(jnp.asarray(np.eye(len(costs.sizes), dtype="f")[groups])[order], axis=0)
    fits = jax.vmap(partial(share, costs))(counts) <= budget - SLACK
    most = jnp.maximum(jnp.sum(fits), sum(floors))
    return jnp.zeros(len(order), bool).at[order].set(jnp.arange(len(order)) < most)


def _floors(costs: Costs, floor: int) -> list[int]:
    return [min(max(floor, 1), size) for size in costs.sizes]
