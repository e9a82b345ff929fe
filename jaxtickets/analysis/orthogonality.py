"""The distance of masked layers from orthogonality, and its repair by gradient descent.

The score is from an undergraduate thesis on annealing over masks, 2020, which asked whether a mask
that makes its layers less orthogonal trains worse.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets import losses, masks
from jaxtickets.types import Array, Mask, Params, Prunable


def score(params: Params, mask: Mask, prunable: Prunable) -> jax.Array:
    """`losses.orthogonality` of the masked prunable kernels; lower is closer to orthogonal.

    >>> params, mask = {"w": np.ones((2, 2))}, {"w": np.eye(2, dtype=bool)}
    >>> float(score(params, masks.ones(params), ("w",))), float(score(params, mask, ("w",)))
    (2.5, 0.0)
    """
    return losses.orthogonality(masks.pick(masks.apply(mask, params), prunable))


def repair(params: Params, mask: Mask, prunable: Prunable, steps: int, rate: float = 0.1) -> Params:
    """The parameters after gradient descent on the score, which changes only kept weights.

    Every layer descends its own mean of squares, with its gradient multiplied by its number of
    inputs: the gradient of a mean over inputs² entries is too small for one rate to suit layers of
    all widths. The thesis took 20,000 plain steps of 0.1 for each layer.

    Args:
      params: the initial parameters.
      mask: the weights that change.
      prunable: the kernels that are repaired.
      steps: the number of steps.
      rate: the learning rate.

    >>> params, mask = {"w": jnp.full((2, 2), 0.5)}, {"w": np.eye(2, dtype=bool)}
    >>> repaired = repair(params, mask, ("w",), steps=100)
    >>> repaired["w"].round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def objective(kernels: list[Array], kept: list[Array]) -> Array:
        scores = [
            losses.layer_orthogonality(jnp.where(m, k, 0.0)) * (k.size // k.shape[-1])
            for k, m in zip(kernels, kept, strict=True)
        ]
        return jnp.sum(jnp.stack(scores))

    kept = masks.pick(mask, prunable)

    def descend(kernels: list[Array], _: None) -> tuple[list[Array], None]:
        gradients = jax.grad(objective)(kernels, kept)
        return [k - rate * g for k, g in zip(kernels, gradients, strict=True)], None

    begun = masks.pick(masks.apply(mask, params), prunable)
    moved, _ = lax.scan(descend, begun, None, length=steps)
    return masks.put(masks.apply(mask, params), prunable, moved)
