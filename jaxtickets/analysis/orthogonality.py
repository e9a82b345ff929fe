"""How far a layer's masked weights are from orthogonal, and repair by gradient.

The score of an undergraduate thesis on annealing over masks, 2020, whose question was whether a
mask that makes its layers less orthogonal trains worse.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets import masks
from jaxtickets.types import Array, Mask, Params, Prunable


def layer_score(kernel: Array) -> jax.Array:
    """`mean[(WᵀW − I)²]` over the entries of the Gram matrix of a layer's inputs.

    `W[units, inputs]` holds the kernel as PyTorch has it: row j is unit j's incoming weights, and a
    convolution `[h, w, c, filters]` is flattened to `[filters, h · w · c]`. So the Gram matrix is
    `[inputs, inputs]`, and `WᵀW = I` would keep the length of every input. With n inputs,
    `‖WᵀW − I‖² = ‖WWᵀ‖² − 2 ‖W‖² + n`, of which the smaller Gram matrix is computed.

    Args:
      kernel: masked weights, `[..., inputs, units]`.
    """
    w = kernel.reshape(-1, kernel.shape[-1])  # [inputs, units]
    inputs = w.shape[0]
    gram = w @ w.T if inputs < w.shape[1] else w.T @ w
    return (jnp.sum(gram**2) - 2 * jnp.sum(w**2) + inputs) / inputs**2


def score(params: Params, mask: Mask, prunable: Prunable) -> jax.Array:
    """The sum of `layer_score` over the prunable kernels, masked; lower is nearer to orthogonal."""
    kernels = masks.pick(masks.apply(mask, params), prunable)
    return jnp.sum(jnp.stack([layer_score(kernel) for kernel in kernels]))


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
            layer_score(jnp.where(m, k, 0.0)) * (k.size // k.shape[-1])
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
