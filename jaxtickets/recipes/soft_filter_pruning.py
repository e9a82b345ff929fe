"""Soft filter pruning: filters are zeroed again and again during training and may recover.

He et al., "Soft filter pruning for accelerating deep convolutional neural networks", 2018: at the
end of each epoch, the filters with the smallest norms are set to zero. They remain in training and
may grow again, while others are zeroed in their place. He et al., "Filter pruning via geometric
median", 2019, zero the filters that are nearest to the others in the same way. Filters are removed
only after the last epoch.
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
"""The methods whose criterion reads only the weights."""


def zeroing(
    criterion: UnitCriterion, graph: Graph, density: float, floor: int, multiple: int
) -> Callable[[Params], Params]:
    """A pure function that zeroes the filters with the lowest scores in each group of units.

    It zeroes the filters' kernel columns and biases. Batch norms and the layers that read the units
    do not change, so that zeroed filters have a gradient and can grow. Without a batch norm, the
    gradient of a ReLU at zero is zero, and only the optimiser's momentum moves them.

    Args:
      criterion: the criterion of one of `METHODS`, which reads only the weights.
      graph: the net's channel graph.
      density, floor, multiple: see `unit_selection.by_layer`.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress.graph import trace
    >>> graph = trace(nets.make("mlp", widths=(2, 2, 2), use_bias=False), (2, 1, 1))
    >>> params = {layer: {"kernel": jnp.array([[1.0, 2.0], [3.0, 1.0]])} for layer in graph.units}
    >>> zero = zeroing(methods()["l1"], graph, density=0.5, floor=1, multiple=1)
    >>> zero(params | {"out": {"kernel": jnp.ones((2, 10))}})["fc1"]["kernel"].tolist()
    [[1.0, 0.0], [3.0, 0.0]]
    """
    makers = tuple(group._replace(norms=(), consumers=()) for group in graph.wiring)

    def zero(params: Params) -> Params:
        seen = Evidence(params, params, {}, None, None, None)
        scores = criterion.score(jax.random.key(0), seen, graph.wiring)  # draws nothing
        units = best_of_each(graph, scores, density, floor, multiple)
        return masks.apply(masks.expand(units, makers, params), params)

    return zero


def standing(params: Params, wiring: Wiring) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the units that have a non-zero incoming weight.

    >>> from jaxtickets.types import Feed, Units
    >>> group = Units("fc1", 2, producers=("fc1",), norms=(), consumers=(Feed("out", 1),))
    >>> params = {"fc1": {"kernel": np.array([[0.0, 1.0], [0.0, 0.0]])}}
    >>> {name: units.tolist() for name, units in standing(params, (group,)).items()}
    {'fc1': [False, True]}
    """
    return {g.name: np.asarray(jnp.any(filters(params, g) != 0, axis=1)) for g in wiring}
