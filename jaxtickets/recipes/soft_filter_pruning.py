"""Soft filter pruning: filters are chosen and zeroed again and again while the net trains.

He et al., "Soft filter pruning for accelerating deep convolutional neural networks", 2018: at the
end of each epoch the filters with the smallest norms are set to zero, and go on training; they may
grow, and others be zeroed in their place. He et al., "Filter pruning via geometric median", 2019,
choose in the same way those nearest to the others. Only after the last epoch do they go for good.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.graph import Graph
from jaxtickets.compress.unit_selection import best_of_each
from jaxtickets.criteria.base import Evidence, UnitCriterion
from jaxtickets.criteria.units.filters import filters
from jaxtickets.recipes.structured import methods
from jaxtickets.types import Params, Wiring

SOFT = "soft_"
METHODS = tuple(f"{SOFT}{name}" for name, one in methods().items() if one.weights_alone)
"""Those of criteria that look at the weights alone."""


def zeroing(
    criterion: UnitCriterion, graph: Graph, density: float, floor: int, multiple: int
) -> Callable[[Params], Params]:
    """A pure function that zeroes, in each group of units, the filters with the lowest scores.

    Kernels' columns and biases of the layers that make the units; batch norms and what reads the
    units are left alone, so that the filters have a slope to grow by. Without a batch norm, ReLU
    has none at zero: there it is the optimiser's momentum that moves them.

    Args:
      criterion: looks at the weights alone: of one of `METHODS`.
      graph: the net's.
      density, floor, multiple: see `choose.by_layer`.
    """
    makers = tuple(group._replace(norms=(), consumers=()) for group in graph.wiring)

    def zero(params: Params) -> Params:
        seen = Evidence(params, params, {}, None, None, None)
        scores = criterion.score(jax.random.key(0), seen, graph.wiring)  # draws nothing
        units = best_of_each(graph, scores, density, floor, multiple)
        return masks.apply(masks.expand(units, makers, params), params)

    return zero


def standing(params: Params, wiring: Wiring) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the units that have incoming weights other than zero."""
    return {g.name: np.asarray(jnp.any(filters(params, g) != 0, axis=1)) for g in wiring}
