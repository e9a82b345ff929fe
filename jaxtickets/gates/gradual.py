"""Edge-popup whose density falls while it is trained: gradual pruning of scores.

Many weights are used at first, and in each training step fewer, until `until` of the training is
done; with t the share that is done,

    used(t) = keep + (begin · size - keep) (1 - t / until)^3,

the fall `schedules.gradual`. Scores are trained as edge-popup's
are, so that what has gone comes back when its score does. Edge-popup itself (Ramanujan et al.,
2020) uses `keep` weights throughout, and nothing that is not used in the end helps it to learn.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxtickets import allocation, masks, schedules
from jaxtickets.gates import edge_popup
from jaxtickets.gates.base import Gate, Scale, unscaled
from jaxtickets.types import Array, Keep, Key, Params, Prunable, Scores

BEGIN, UNTIL = 0.5, 0.6


def gate(
    prunable: Prunable,
    keep: Keep,
    scale: Scale = unscaled,
    floor: Keep = 0,
    steps: int = 0,
    begin: float = BEGIN,
    until: float = UNTIL,
) -> Gate:
    """The weights with the highest |s| are used, ever fewer of them, exactly `keep` at the end.

    Args:
      prunable, keep, scale, floor: see `edge_popup.gate`; `scale` sees what is used at each step.
      steps: of the training; after `until` of them, or for 0 from the first, `keep` are used.
      begin: share of the weights that are used at first, above 0, at most 1; of each leaf where
        `keep` is a count for each. Nothing falls where it is below what is kept.
      until: share of the training at which `keep` is reached, above 0, at most 1.

    Raises:
      ValueError: `begin` or `until` is out of range.
    """
    for name, share in (("begin", begin), ("until", until)):
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share}: must be above 0 and at most 1")

    def used(step: Array, params: Params) -> Keep:
        """How many weights are used in the training step after so many."""
        spread = allocation.uniform if isinstance(keep, Mapping) else allocation.global_
        first = spread(masks.shapes(params, prunable), begin)
        left = schedules.gradual((jnp.asarray(step) + 1) / max(steps, 1), until)

        def now(last: Array, first: int) -> jax.Array:
            more = jnp.maximum(first - last, 0)
            return last + jnp.round(left * more).astype(jnp.int32)

        return jax.tree.map(now, keep, first)

    def apply(key: Key, step: Array, scores: Scores, params: Params) -> tuple[Params, Array]:
        at = edge_popup.gate(prunable, used(step, params), scale, floor)
        return at.apply(key, step, scores, params)

    return edge_popup.gate(prunable, keep, scale, floor)._replace(apply=apply)
