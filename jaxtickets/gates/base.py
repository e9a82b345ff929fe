"""The interface of gates, and how `training` trains a gate while the weights stay fixed.

A gate makes the mask a function of parameters g, so that gradients can train g. `loss`, `model` and
`recipe` turn a loss, a net and a recipe over weights into the same over g. `training` then takes g
in the place of the weights, with the mask `masks.ones(g)`; the weights are part of the statistics,
`begin(stats, params)`.

    gated = gates.recipe(gate, problem.recipe)
    g = gate.init(gate_key, params)
    training.train(gated, key, hyper, g, gates.begin(stats, params), masks.ones(g), data, steps)
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.training import Recipe
from jaxtickets.types import (
    Array,
    Keep,
    Key,
    Loss,
    Mask,
    Model,
    Params,
    Prunable,
    PyTree,
    Scores,
    Split,
    Stats,
)

Scale = Callable[[Mask, Params], Params]
"""`scale(mask, params) -> params`: rescales the dense weights before the mask selects from them.

`unscaled`, or `search.energies.rescale` or `bernoulli.dynamic_rescale` with their leaves bound.
"""


def unscaled(mask: Mask, params: Params) -> Params:
    """The unchanged weights."""
    del mask
    return params


class Gate(NamedTuple):
    """A mask as a function of trained parameters g.

    Attributes:
      init: `init(key, params) -> g`, a PyTree of float; the key is consumed.
      apply: `apply(key, step, g, params) -> (effective params, penalty)`: the weights that the net
        uses in a training step, differentiable in g, and a scalar that is added to the loss. The
        key feeds a random mask and is consumed.
      harden: `harden(g, params) -> mask`: the mask after training.
      scale: rescales the weights under the hard mask: `scale(mask, params)` and the mask form a
        ticket.
    """

    init: Callable[[Key, Params], PyTree]
    apply: Callable[[Key, Array, PyTree, Params], tuple[Params, Array]]
    harden: Callable[[PyTree, Params], Mask]
    scale: Scale = unscaled


class Constructor(Protocol):
    """`constructor(prunable, keep, scale, floor, steps) -> gate`: the signature of every gate."""

    def __call__(
        self,
        prunable: Prunable,
        keep: Keep,
        scale: Scale = unscaled,
        floor: Keep = 0,
        steps: int = 0,
    ) -> Gate:
        """A gate whose hard mask keeps `keep` of the leaves `prunable`, see `masks.select`.

        `steps` is the number of training steps; gates whose mask does not depend on it ignore it.
        """
        ...


class GatedStats(NamedTuple):
    """The statistics of a gated net.

    Attributes:
      net: the net's own batch statistics.
      weights: the net's weights, which training does not change. They are stored here because a run
        carries nothing else beside g.
      step: int32 scalar, the number of steps taken, which gates receive.
    """

    net: Stats
    weights: Params
    step: Array


def begin(stats: Stats, weights: Params, step: Array | int = 0) -> GatedStats:
    """The statistics from which a gate's training starts at `step` (see `training.init`)."""
    return GatedStats(stats, weights, jnp.asarray(step, jnp.int32))


def hardened(gate: Gate, g: PyTree, params: Params) -> Params:
    """The weights under the hard mask, rescaled by the gate's `scale`."""
    mask = gate.harden(g, params)
    return masks.apply(mask, gate.scale(mask, params))


def loss(gate: Gate, of_weights: Loss) -> Loss:
    """The loss of g at fixed weights: the loss of the effective weights plus the gate's penalty.

    Args:
      gate: the gate.
      of_weights: the loss of the net's weights; it receives the net's statistics and a dropout key.

    Returns:
      `loss(g, stats, batch, key)` with `GatedStats`. Its metrics are those of `of_weights`, with
      the penalty added to `"loss"`, and `"penalty"`. The key is consumed.
    """

    def of_gate(
        params: PyTree, stats: GatedStats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[GatedStats, dict[str, jax.Array]]]:
        gate_key, net_key = jax.random.split(key)
        effective, penalty = gate.apply(gate_key, stats.step, params, stats.weights)
        value, (net, metrics) = of_weights(effective, stats.net, batch, net_key)
        value = value + penalty
        metrics = metrics | {"loss": value, "penalty": penalty}
        return value, (stats._replace(net=net, step=stats.step + 1), metrics)

    return of_gate


def model(gate: Gate, of_weights: Model) -> Model:
    """The net as functions of g: the hard mask in evaluation mode, `gate.apply` in training mode.

    Args:
      gate: the gate.
      of_weights: the net as functions of its weights.
    """

    def init(key: Key) -> tuple[PyTree, GatedStats]:
        gate_key, net_key = jax.random.split(key)
        weights, stats = of_weights.init(net_key)
        return gate.init(gate_key, weights), begin(stats, weights)

    def apply(
        g: PyTree, stats: GatedStats, images: Array, key: Any = None, train: bool = False
    ) -> tuple[jax.Array, GatedStats]:
        if not train:
            effective = hardened(gate, g, stats.weights)
            return of_weights.apply(effective, stats.net, images)[0], stats
        gate_key, net_key = jax.random.split(key)
        effective, _ = gate.apply(gate_key, stats.step, g, stats.weights)
        logits, net = of_weights.apply(effective, stats.net, images, net_key, True)
        return logits, stats._replace(net=net, step=stats.step + 1)

    return Model(init, apply)


def recipe(gate: Gate, of_weights: Recipe) -> Recipe:
    """The recipe that trains g at fixed weights and evaluates the hard mask."""
    gated = model(gate, of_weights.model), loss(gate, of_weights.loss)
    return of_weights._replace(model=gated[0], loss=gated[1])


def straight_through(mask: Mask, soft: Scores, params: Params, prunable: Prunable) -> Params:
    """`where(mask, params, 0)` on the leaves `prunable`, with the gradient of `soft · params`.

    The gradient treats the hard mask as if it were the soft one (Bengio et al., "Estimating or
    propagating gradients through stochastic neurons", 2013). With result W and weights w, `dL/dsoft
    = w · dL/dW`, for pruned weights too, and `dL/dw = where(mask, dL/dW, 0)`. Other leaves do not
    change.

    Raises:
      ValueError: a mask is not like the parameters.
    """
    masks.check_mask(mask, params)
    masks.check_like(soft, params, "the soft mask", "the parameters")
    trees = (masks.pick(tree, prunable) for tree in (mask, soft, params))
    return masks.put(params, prunable, [_through(*leaf) for leaf in zip(*trees, strict=True)])


@jax.custom_jvp
def _through(mask: Array, soft: Array, weights: Array) -> jax.Array:
    del soft
    return jnp.where(mask, weights, jnp.zeros_like(weights))


@_through.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[jax.Array, jax.Array]:
    mask, soft, weights = primals
    _, along_soft, along_weights = tangents
    kept = jnp.where(mask, along_weights, jnp.zeros_like(along_weights))
    tangent = kept + weights * along_soft  # scores may have more precision
    return _through(mask, soft, weights), tangent.astype(weights.dtype)
