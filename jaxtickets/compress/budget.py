"""Units under a budget of multiply-adds, as arrays: what a choice costs, and the largest that fits.

`choose.to_budget` does on the host, once, what a search does at every step; this can be traced and
batched. A layer with `m_l` multiply-adds in the whole net costs, when `n_g` of the `N_g` units of
each group g stay,

    m_l · Π_axes (1 - Σ_g r_lag (1 - n_g / N_g)),

where `r_lag` is the share of the layer's axis a (inputs, outputs) that the units of g are.
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
"""What is left of a budget, as a share of the whole net, for the rounding of float32."""


class Costs(NamedTuple):
    """What the layers of a net cost by the units that stay; static.

    Attributes:
      names: of the groups.
      layers: float32`[layers]`, each layer's share of the whole net's multiply-adds.
      axes: float32`[layers, 2, groups]`, the share of a layer's axis that a group's units are: of
        the inputs or the outputs, in any order; zeros where an axis has no units that can go.
      sizes: the units of each group.
    """

    names: tuple[str, ...]
    layers: np.ndarray
    axes: np.ndarray
    sizes: tuple[int, ...]


def costs(graph: Graph, dense: Mapping[str, int]) -> Costs:
    """The costs of a net's layers; groups are in the order of `graph.wiring`.

    Args:
      graph: of the net.
      dense: leaf -> its multiply-adds in the whole net (`nets.multiply_adds`).

    Raises:
      ValueError: groups share units, so that their counts don't tell a cost.
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
    """float32, the share of the multiply-adds that counts`[groups]` of units cost."""
    gone = 1 - counts / jnp.asarray(costs.sizes, jnp.float32)
    left = 1 - jnp.sum(costs.axes * gone[None, None, :], axis=-1)
    return jnp.sum(costs.layers * jnp.prod(left, axis=-1))


def least(costs: Costs, floor: int) -> float:
    """The share that remains where every group keeps its floor, at least one unit."""
    return float(share(costs, jnp.array(_floors(costs, floor))))


def within(costs: Costs, scores: Array, budget: Array, floor: int = 1) -> Array:
    """bool`[units]`: the highest scores, as many as cost no more than the budget.

    Units are taken from the highest score down, each group's first `floor` before all others, until
    the next one no longer fits.

    Args:
      costs: of the net.
      scores: float`[units]`, group after group; higher is kept first.
      budget: in (0, 1], the share of the multiply-adds; at least `least(costs, floor)`.
      floor: the least that a group keeps; a smaller one is kept whole. 0 is as 1, since no choice
        may empty a layer.
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
