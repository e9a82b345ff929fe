"""Bernoulli masks: each weight is kept with its own probability, which is trained.

Zhou et al., "Deconstructing lottery tickets", 2019, section 5. The weights stay fixed: any initial
weights, or `nets.signed_constant` of them.
"""

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.gates.base import Gate, Scale, equal_scores, straight_through, unscaled
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, Scores


def gate(
    prunable: Prunable,
    keep: Keep | None,
    scale: Scale = unscaled,
    floor: Keep = 0,
    steps: int = 0,
    start: Array | float = 0.0,
) -> Gate:
    """Draws a new mask from Bernoulli(sigmoid(s)) at every step.

    With W the effective weights, `dL/ds = w · dL/dW · sigmoid'(s)`: the gradient passes straight
    through the draw, for kept and for dropped weights. There is no penalty. The hard mask keeps the
    highest s, exactly `keep`. The paper prescribes no density (see `threshold`) and also draws
    masks in evaluation (see `sample`).

    Args:
      prunable: the leaves that are masked.
      keep, floor: how many weights the hard mask keeps, see `masks.select`; `keep` None uses
        `threshold` instead.
      scale: rescales the kept weights, for example `dynamic_rescale`. The gradient passes through
        its factor where that is differentiable in the mask, as in the paper's code.
      steps: not used.
      start: the initial score of every weight; 0, as in the paper's code, gives probability 1/2.

    >>> certain = {"w": jnp.array([-100.0, 100.0])}
    >>> params = {"w": jnp.array([3.0, 4.0])}
    >>> drawn, penalty = gate(("w",), keep=1).apply(jax.random.key(0), 0, certain, params, 1.0)
    >>> drawn["w"].tolist(), float(penalty)
    ([0.0, 4.0], 0.0)
    """
    del steps

    def apply(
        key: Key, step: Array, scores: Scores, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del step, strength
        mask, soft = sample(key, scores, prunable), jax.tree.map(jax.nn.sigmoid, scores)
        ones = jax.tree.map(jnp.ones_like, params)
        scaled = scale(straight_through(mask, soft, ones, prunable), params)
        return straight_through(mask, soft, scaled, prunable), jnp.float32(0)

    def harden(scores: Scores, params: Params) -> Mask:
        del params
        if keep is None:
            return threshold(scores, prunable)
        return masks.select(scores, prunable, keep, floor)

    return Gate(equal_scores(prunable, start), apply, harden, scale)


def sample(key: Key, scores: Scores, prunable: Prunable) -> Mask:
    """Draws each bit of a mask from Bernoulli(sigmoid(s)); the key is consumed.

    >>> scores = {"w": np.array([-100.0, 100.0]), "b": np.zeros(2)}
    >>> mask = sample(jax.random.key(0), scores, ("w",))
    >>> mask["w"].tolist(), mask["b"].tolist()
    ([False, True], [True, True])
    """
    leaves = masks.pick(scores, prunable)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.bernoulli(k, jax.nn.sigmoid(s)) for k, s in zip(keys, leaves, strict=True)]
    return masks.put(masks.ones(scores), prunable, drawn)


def threshold(scores: Scores, prunable: Prunable) -> Mask:
    """The mask `sigmoid(s) > 1/2`: each bit at its likelier value, at whatever density results.

    >>> threshold({"w": np.array([-0.1, 0.2, 3.0])}, ("w",))["w"].tolist()
    [False, True, True]
    """
    leaves = [leaf > 0 for leaf in masks.pick(scores, prunable)]
    return masks.put(masks.ones(scores), prunable, leaves)


def dynamic_rescale(mask: Mask, params: Params, prunable: Prunable) -> Params:
    """Multiplies each prunable leaf by `size / kept`: dynamic weight rescaling (DWR).

    Zhou et al., section 5; `search.energies.rescale` uses the square root. Nothing is masked. The
    mask may hold float zeros and ones, and the result is differentiable in them.

    >>> mask, params = {"w": np.array([1, 0, 0])}, {"w": jnp.array([1.0, 2.0, 3.0])}
    >>> dynamic_rescale(mask, params, ("w",))["w"].tolist()
    [3.0, 6.0, 9.0]
    """

    def leaf(bits: Array, weights: Array) -> Array:
        kept = jnp.sum(bits, dtype=weights.dtype)
        return weights * (weights.size / jnp.maximum(kept, 0.5))  # 0.5 keeps an empty leaf finite

    pairs = zip(masks.pick(mask, prunable), masks.pick(params, prunable), strict=True)
    return masks.put(params, prunable, [leaf(*pair) for pair in pairs])
