"""Edge-popup: trains a score for each fixed weight and uses the weights with the best scores.

Ramanujan et al., "What's hidden in a randomly weighted neural network?", 2020. The weights stay
fixed: Kaiming normal, or `nets.signed_constant` of them.
"""

import jax
import jax.numpy as jnp

from jaxtickets import masks, nets
from jaxtickets.gates.base import Gate, Scale, straight_through, unscaled
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, Scores


def gate(
    prunable: Prunable, keep: Keep, scale: Scale = unscaled, floor: Keep = 0, steps: int = 0
) -> Gate:
    """Uses the weights with the highest |s|, exactly `keep` of them at every step.

    With W the effective weights, `dL/ds = sign(s) · w · dL/dW` for used and unused weights alike:
    the gradient passes straight through the selection, as in the paper's section 3. Ranking |s|
    follows the paper's code. The paper ranks within layers; for this, `keep` is a count for each
    leaf, such as `allocation.uniform`'s. A single total ranks all leaves together, where units with
    more inputs have smaller initial scores. There is no penalty. Only `init` uses its key.

    Args:
      prunable: the leaves that are masked.
      keep, floor: how many weights are used, see `masks.select`; `keep` may be traced.
      scale: rescales the used weights, see `Scale`. Its factor is treated as a constant, which it
        is if `keep` is a count for each leaf. `search.energies.rescale` on Kaiming normal weights
        is then the paper's scaled Kaiming normal.
      steps: not used.

    >>> params, scores = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.1, -0.2])}
    >>> used, _ = gate(("w",), keep=1).apply(jax.random.key(0), 0, scores, params, 1.0)
    >>> used["w"].tolist()
    [0.0, 4.0]
    """
    del steps

    def init(key: Key, params: Params) -> Scores:
        """Kaiming uniform scores with a = sqrt 5: `U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))`."""
        zero = masks.zeros(params)
        leaves = masks.pick(zero, prunable)
        keys = jax.random.split(key, len(leaves))
        draw = nets.INITIALIZERS["kaiming_uniform"].kernel
        drawn = [draw(k, z.shape, z.dtype) for k, z in zip(keys, leaves, strict=True)]
        return masks.put(zero, prunable, drawn)

    def apply(
        key: Key, step: Array, scores: Scores, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del key, step, strength
        mask = harden(scores, params)
        magnitude = jax.tree.map(jnp.abs, scores)
        effective = straight_through(mask, magnitude, scale(mask, params), prunable)
        return effective, jnp.float32(0)

    def harden(scores: Scores, params: Params) -> Mask:
        del params
        return masks.select(jax.tree.map(jnp.abs, scores), prunable, keep, floor)

    return Gate(init, apply, harden, scale)
