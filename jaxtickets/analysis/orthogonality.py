"""How far a layer's masked weights are from orthogonal, and repair by gradient.

The score of an undergraduate thesis on annealing over masks, 2020, whose question was whether a
mask that makes its layers less orthogonal trains worse.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets import losses, masks
from jaxtickets.types import Array, Mask, Params, Prunable


def score(params: Params, mask: Mask, prunable: Prunable) -> jax.Array:
    """`losses.orthogonality` of the prunable kernels, masked; lower is nearer to orthogonal."""
    return losses.orthogonality(masks.pick(masks.apply(mask, params), prunable))


def repair(params: Params, mask: Mask, prunable: Prunable, steps: int, rate: float = 0.1) -> Params:
    """Parameters after gradient descent on the score's layers, masked weights alone moving.

    Every layer descends its own mean of squares, whose slope is multiplied by its number of inputs:
    a mean over inputs² entries is too flat for one rate to serve layers of all widths. The
    thesis took 20,000 plain steps of 0.1 a layer.

    Args:
      params: where to begin.
      mask: what moves.
      prunable: the kernels that are repaired.
      steps: how many.
      rate: the learning rate.
    """

    def objective(kernels: list[Array], kept: list[Array]) -> Array:
        scores = [
            losses.layer_orthogonality(jnp.where(m, k, 0.0)) * (k.size // k.shape[-1])
            for k, m in zip(kernels, kept, strict=True)
        ]
        return jnp.sum(jnp.stack(scores))

    kept = masks.pick(mask, prunable)

    def descend(kernels: list[Array], _: None) -> tuple[list[Array], None]:
        slopes = jax.grad(objective)(kernels, kept)
        return [k - rate * g for k, g in zip(kernels, slopes, strict=True)], None

    begun = masks.pick(masks.apply(mask, params), prunable)
    moved, _ = lax.scan(descend, begun, None, length=steps)
    return masks.put(masks.apply(mask, params), prunable, moved)
