"""Penalties as gates: the strength may be a batch axis there.

The net trains with `strength · penalty(weights)` in its loss, or with a proximal step in its place.
What hardens it is a score of each unit or weight, the norm that the penalty pulls on, relative to
the largest of its layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks
from jaxtickets.compress import unit_selection
from jaxtickets.compress.graph import Graph
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import UNIT_CRITERIA
from jaxtickets.dynamic import proximal
from jaxtickets.gates import Gate, Joint
from jaxtickets.penalties import PENALTIES
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, PyTree

CUTOFF = 0.05
"""The smallest norm of a unit or a weight that stays, relative to the largest of its layer.

Adam with a penalty's subgradient leaves small weights instead of zeros."""
LEAST = 1e-30
"""The largest norm of a layer of zeros is taken for this number."""
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


def group_lasso_proximal(
    prunable: Prunable, keep: Keep | None, graph: Graph, output: str, shapes: Params
) -> Gate:
    """The group lasso as a step after the optimiser's, see `dynamic.proximal`: zeros are exact.

    A scalar g carries the strength λ to the optimiser: its gradient is λ, so that a gradient step
    at the rate η is -η λ, on the schedule of the weights' rate. The proximal step takes that, and g
    stays 0. The metric `penalty` is 0, too.
    """
    kernels = tuple(path for path in prunable if not path.startswith(f"{output}/"))
    lasso = _gate("group_lasso", prunable, keep, graph, output, shapes, cutoff=0.0)

    def init(key: Key, params: Params) -> Array:
        del key, params
        return jnp.zeros(())

    def apply(
        key: Key, step: Array, g: Array, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del key, step
        return params, strength * g

    def optimizer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
        inner = optax.with_extra_args_support(inner)

        def update(
            gradient: Joint, state: PyTree, params: Joint, **extra: Any
        ) -> tuple[Joint, PyTree]:
            (weights, g), state = inner.update(gradient, state, params, **extra)
            shrink = proximal.group_lasso(optax.identity(), 1.0, -g, kernels)
            weights, _ = shrink.update(weights, shrink.init(params.weights), params.weights)
            return Joint(weights, jnp.zeros_like(g)), state

        return optax.GradientTransformationExtraArgs(inner.init, update)

    return lasso._replace(init=init, apply=apply, optimizer=optimizer)


def hoyer_square(
    prunable: Prunable, keep: Keep | None, floor: Keep, output: str, shapes: Params
) -> Gate:
    """`penalties.hoyer_square`: single weights, cut by their size relative to their layer's.

    Args:
      prunable: the leaves that are counted.
      keep, floor: how many weights are kept, see `masks.select`; None: those above `CUTOFF`.
      output, shapes: see `_gate`.
    """

    def harden(g: tuple[()], params: Params) -> Mask:
        del g
        sizes = [jnp.abs(leaf) for leaf in masks.pick(params, prunable)]
        ratios = [size / jnp.maximum(jnp.max(size), LEAST) for size in sizes]
        if keep is None:
            return masks.put(masks.ones(params), prunable, [r > CUTOFF for r in ratios])
        return masks.select(masks.put(masks.zeros(params), prunable, ratios), prunable, keep, floor)

    return _penalised("hoyer_square", output, shapes, harden)


def _penalised(
    name: str, output: str, shapes: Params, harden: Callable[[tuple[()], Params], Mask]
) -> Gate:
    """A gate without parameters, with a penalty of the weights.

    Raises:
      ValueError: the net lacks what the penalty is on.
    """
    penalty = PENALTIES[name]
    jax.eval_shape(lambda params: penalty(params, output), shapes)

    def init(key: Key, params: Params) -> tuple[()]:
        del key, params
        return ()

    def apply(
        key: Key, step: Array, g: tuple[()], params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del key, step, g
        return params, strength * penalty(params, output)

    return Gate(init, apply, harden, trains_weights=True)


def _gate(
    name: str,
    prunable: Prunable,
    keep: Keep | None,
    graph: Graph,
    output: str,
    shapes: Params,
    cutoff: float = CUTOFF,
) -> Gate:
    """A penalty on units as a gate. The strength is the factor of the penalty, in nats.

    Args:
      name: the penalty.
      prunable: the leaves that are counted.
      keep: the most weights that are kept, in all; None: the units above `cutoff`. Units are
        removed whole, from all layers together, and each layer keeps one.
      graph: the net's channel graph.
      output: the output layer, whose units all stay.
      shapes: the net's parameters as shapes.
      cutoff: see `CUTOFF`.

    Raises:
      ValueError: the net lacks what the penalty is on, or one unit a layer has more weights than
        `keep`.
    """
    score = UNIT_CRITERIA[NORMS[name]].score
    sizes = {path: int(np.prod(s)) for path, s in masks.shapes(shapes, prunable).items()}
    single = {name: np.arange(len(places)) == 0 for name, places in graph.units.items()}
    least = unit_selection.multiply_adds(graph, sizes, single)
    if keep is not None and keep < least:
        raise ValueError(f"one unit in each layer takes {least} weights, of {keep} that are kept")

    def expand(units: dict[str, Array], params: Params) -> Mask:
        return masks.expand(units, graph.wiring, params)

    def harden(g: tuple[()], params: Params) -> Mask:
        del g
        seen = Evidence(params, params, {}, None, None, None)
        scores = score(jax.random.key(0), seen, graph.wiring)
        ratio = {name: s / jnp.maximum(jnp.max(s), LEAST) for name, s in scores.items()}
        if keep is None:
            return expand({name: r > cutoff for name, r in ratio.items()}, params)
        names = tuple(ratio)

        def of(count: Array) -> Mask:
            return expand(masks.select(ratio, names, count, 1), params)

        return of(most_units(lambda n: masks.count(of(n), prunable), keep, _bounds(ratio)))

    return _penalised(name, output, shapes, harden)


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
