"""Pruning by threshold: drops the weights below a value, at whatever density results."""

import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.types import Array, Mask, Params, Prunable

RULES = ("quantile", "deviation", "signed_quantile")
"""The rules that turn a number t into a threshold.

- `quantile`: the value at rank t · N of |w| over all N prunable weights; computed once, for the
  dense net, and used in every round.
- `deviation`: t times the standard deviation of a layer's remaining weights, computed in each
  round; Han et al., "Learning both weights and connections for efficient neural networks", 2015,
  section 3.1, where t is called quality.
- `signed_quantile`: like `quantile`, but of w instead of |w|, so that nearly all negative weights
  are dropped first. This is a mistake from the code of a course, kept to measure its effect.
"""


def thresholds(
    rule: str, params: Params, mask: Mask, prunable: Prunable, t: Array
) -> dict[str, Array]:
    """Leaf -> the threshold, a float scalar; weights at or below it are dropped.

    Args:
      rule: one of `RULES`.
      params: trained parameters.
      mask: the mask so far.
      prunable: the leaves that are pruned.
      t: the number of the rule; may be traced.

    Raises:
      ValueError: an unknown rule.

    >>> params, dense = {"w": jnp.array([[1.0, -2.0, 3.0, -4.0]])}, {"w": np.ones((1, 4), bool)}
    >>> float(thresholds("quantile", params, dense, ("w",), 0.5)["w"])
    2.0
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule '{rule}': one of {', '.join(RULES)}")
    if rule == "deviation":
        pairs = zip(prunable, masks.pick(params, prunable), masks.pick(mask, prunable), strict=True)
        return {path: t * jnp.std(leaf, where=kept) for path, leaf, kept in pairs}
    flat, kept = masks.flatten(params, prunable), masks.flatten(mask, prunable)
    values = flat if rule == "signed_quantile" else jnp.abs(flat)
    value = jnp.nanquantile(jnp.where(kept, values, jnp.nan), t, method="lower")
    return dict.fromkeys(prunable, value)


def cut(
    rule: str, params: Params, mask: Mask, prunable: Prunable, values: dict[str, Array]
) -> Mask:
    """The mask of the weights above the `thresholds`; pruned weights stay pruned.

    >>> params, dense = {"w": np.array([[1.0, -2.0, 3.0, -4.0]])}, {"w": np.ones((1, 4), bool)}
    >>> cut("quantile", params, dense, ("w",), {"w": 2.0})["w"].tolist()
    [[False, False, True, True]]
    """
    leaves = []
    for path, leaf, kept in zip(
        prunable, masks.pick(params, prunable), masks.pick(mask, prunable), strict=True
    ):
        size = leaf if rule == "signed_quantile" else jnp.abs(leaf)
        leaves.append(kept & (size > values[path]))
    return masks.put(mask, prunable, leaves)
