"""Bernoulli masks: each weight is there with a probability of its own, which is trained.

Zhou et al., "Deconstructing lottery tickets", 2019, section 5. The weights are whatever is given:
as initialised, or `nets.signed_constant` of them.
"""

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.gates.base import Gate, Scale, straight_through, unscaled
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, Scores


def gate(
    prunable: Prunable,
    keep: Keep | None,
    scale: Scale = unscaled,
    floor: Keep = 0,
    steps: int = 0,
    start: Array | float = 0.0,
) -> Gate:
    """The mask is drawn anew at every step, from Bernoulli(sigmoid(s)).

    With W the effective weights, `dL/ds = w · dL/dW · sigmoid'(s)`: the gradient goes straight
    through the draw, for weights that are there and that are not. There is no penalty. The hard
    mask keeps the highest s, exactly `keep`; the paper has no density, see `threshold`, and draws
    masks in evaluation as well, see `sample`.

    Args:
      prunable: the leaves that are masked.
      keep, floor: how many weights the hard mask keeps, see `masks.select`; for `keep` None it
        is `threshold`'s.
      scale: the survivors' rescaling, such as `dynamic_rescale`; the gradient passes through its
        factor where it is differentiable in the mask, as in the paper's code.
      steps: not used.
      start: the first score of every weight, 0 in the paper's code: probability 1/2.
    """
    del steps

    def init(key: Key, params: Params) -> Scores:
        del key
        zero = masks.zeros(params)
        leaves = [jnp.full_like(leaf, start) for leaf in masks.pick(zero, prunable)]
        return masks.put(zero, prunable, leaves)

    def apply(key: Key, step: Array, scores: Scores, params: Params) -> tuple[Params, Array]:
        del step
        mask, soft = sample(key, scores, prunable), jax.tree.map(jax.nn.sigmoid, scores)
        ones = jax.tree.map(jnp.ones_like, params)
        scaled = scale(straight_through(mask, soft, ones, prunable), params)
        return straight_through(mask, soft, scaled, prunable), jnp.float32(0)

    def harden(scores: Scores, params: Params) -> Mask:
        del params
        if keep is None:
            return threshold(scores, prunable)
        return masks.select(scores, prunable, keep, floor)

    return Gate(init, apply, harden, scale)


def sample(key: Key, scores: Scores, prunable: Prunable) -> Mask:
    """A mask with each bit drawn from Bernoulli(sigmoid(s)); the key is consumed."""
    leaves = masks.pick(scores, prunable)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.bernoulli(k, jax.nn.sigmoid(s)) for k, s in zip(keys, leaves, strict=True)]
    return masks.put(masks.ones(scores), prunable, drawn)


def threshold(scores: Scores, prunable: Prunable) -> Mask:
    """The mask `sigmoid(s) > 1/2`, each bit at its likelier value; the density is what it is."""
    leaves = [leaf > 0 for leaf in masks.pick(scores, prunable)]
    return masks.put(masks.ones(scores), prunable, leaves)


def dynamic_rescale(mask: Mask, params: Params, prunable: Prunable) -> Params:
    """All weights of each prunable leaf times `size / kept`: dynamic weight rescaling (DWR).

    Zhou et al., section 5; `search.energies.rescale` takes the root. Nothing is masked. The mask
    may be of float zeros and ones, and the result is differentiable in them.
    """

    def leaf(bits: Array, weights: Array) -> Array:
        kept = jnp.sum(bits, dtype=weights.dtype)
        return weights * (weights.size / jnp.maximum(kept, 0.5))  # an empty leaf stays finite

    pairs = zip(masks.pick(mask, prunable), masks.pick(params, prunable), strict=True)
    return masks.put(params, prunable, [leaf(*pair) for pair in pairs])
