"""Penalties on units as gates without parameters: the strength may be a batch axis there.

The net trains with `strength · penalty(weights)` in its loss. What hardens it is a score of each
unit, the norm that the penalty pulls on, relative to the largest of its layer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress import unit_selection
from jaxtickets.compress.graph import Graph
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import UNIT_CRITERIA
from jaxtickets.gates import Gate
from jaxtickets.penalties import PENALTIES
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable

CUTOFF = 0.05
"""The smallest norm of a unit that stays, relative to the largest of its layer.

Adam with a penalty's subgradient leaves small weights instead of zeros."""
NORMS = {"group_lasso": "l2", "scales": "abs_batch_norm"}
"""Penalty -> the criterion of units that scores what it pulls on."""


def group_lasso(
    prunable: Prunable, keep: Keep | None, graph: Graph, output: str, shapes: Params
) -> Gate:
    """The norms of the weights into filters and neurons, see `penalties.group_lasso`."""
    return _gate("group_lasso", prunable, keep, graph, output, shapes)


def scales(
    prunable: Prunable, keep: Keep | None, graph: Graph, output: str, shapes: Params
) -> Gate:
    """The scales of batch norms, see `penalties.scales`."""
    return _gate("scales", prunable, keep, graph, output, shapes)


def _gate(
    name: str, prunable: Prunable, keep: Keep | None, graph: Graph, output: str, shapes: Params
) -> Gate:
    """A penalty as a gate. The strength is the factor of the penalty, in nats.

    Args:
      name: the penalty.
      prunable: the leaves that are counted.
      keep: the most weights that are kept, in all; None: the units above `CUTOFF`. Units are
        removed whole, from all layers together, and each layer keeps one.
      graph: the net's channel graph.
      output: the output layer, whose units all stay.
      shapes: the net's parameters as shapes.

    Raises:
      ValueError: the net lacks what the penalty is on, or one unit a layer has more weights than
        `keep`.
    """
    penalty, score = PENALTIES[name], UNIT_CRITERIA[NORMS[name]].score
    jax.eval_shape(lambda params: penalty(params, output), shapes)
    sizes = {path: int(np.prod(s)) for path, s in masks.shapes(shapes, prunable).items()}
    single = {name: np.arange(len(places)) == 0 for name, places in graph.units.items()}
    least = unit_selection.multiply_adds(graph, sizes, single)
    if keep is not None and keep < least:
        raise ValueError(f"one unit in each layer takes {least} weights, of {keep} that are kept")

    def init(key: Key, params: Params) -> tuple[()]:
        del key, params
        return ()

    def apply(
        key: Key, step: Array, g: tuple[()], params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del key, step, g
        return params, strength * penalty(params, output)

    def expand(units: dict[str, Array], params: Params) -> Mask:
        return masks.expand(units, graph.wiring, params)

    def harden(g: tuple[()], params: Params) -> Mask:
        del g
        seen = Evidence(params, params, {}, None, None, None)
        scores = score(jax.random.key(0), seen, graph.wiring)
        ratio = {name: s / jnp.maximum(jnp.max(s), 1e-30) for name, s in scores.items()}
        if keep is None:
            return expand({name: r > CUTOFF for name, r in ratio.items()}, params)
        names = tuple(ratio)

        def of(count: Array) -> Mask:
            return expand(masks.select(ratio, names, count, 1), params)

        return of(most_units(lambda n: masks.count(of(n), prunable), keep, _bounds(ratio)))

    return Gate(init, apply, harden, trains_weights=True)


def _bounds(scores: dict[str, Array]) -> tuple[int, int]:
    """The fewest units, one of each group, and all of them."""
    return len(scores), sum(values.shape[0] for values in scores.values())


def most_units(
    count: Callable[[Array], Array], keep: Array | int, bounds: tuple[int, int]
) -> Array:
    """The most units whose weights are at most `keep`, or the fewest if there are none: int32.

    Args:
      count: number of units -> number of weights, which must not fall.
      keep: the most weights.
      bounds: the fewest units, and the most.
    """

    def halve(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = state
        middle = (low + high + 1) // 2
        fits = count(middle) <= keep
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle - 1)

    few, many = bounds
    steps = max(many - few, 1).bit_length()
    low, _ = jax.lax.fori_loop(0, steps, halve, (jnp.int32(few), jnp.int32(many)))
    return low
