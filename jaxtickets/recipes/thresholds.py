"""Pruning by threshold: what lies below a value goes, and the density is what comes out."""

import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.types import Array, Mask, Params, Prunable

RULES = ("quantile", "deviation", "signed_quantile")
"""How a threshold comes from one number t.

- `quantile`: the value at rank t · N of |w| over all N prunable weights; it stays what it was for
  the dense net, round after round.
- `deviation`: t times the standard deviation of a layer's weights that are left, found anew each
  round; Han et al., "Learning both weights and connections for efficient neural networks", 2015,
  section 3.1, where t is called quality.
- `signed_quantile`: as `quantile`, of w in place of |w|: nearly all negative weights go first. A
  mistake, seen in a course's code; kept to show what it costs.
"""


def thresholds(
    rule: str, params: Params, mask: Mask, prunable: Prunable, t: Array
) -> dict[str, Array]:
    """Leaf -> the value at or below which a weight goes.

    Args:
      rule: one of `RULES`.
      params: trained.
      mask: the mask so far.
      prunable: the leaves that are cut.
      t: the rule's number; may be traced.

    Raises:
      ValueError: unknown rule.
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
    """The mask of what lies above the `thresholds`; what is pruned stays pruned."""
    leaves = []
    for path, leaf, kept in zip(
        prunable, masks.pick(params, prunable), masks.pick(mask, prunable), strict=True
    ):
        size = leaf if rule == "signed_quantile" else jnp.abs(leaf)
        leaves.append(kept & (size > values[path]))
    return masks.put(mask, prunable, leaves)
