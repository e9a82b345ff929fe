"""Edge-popup whose density falls while it is trained: gradual pruning of scores.

Many weights are used at first, and in each training step fewer, until a share `until` of the
training is done; with t the share that is done,

    used(t) = keep + (begin · size - keep) (1 - t / until)^3,

the fall of `schedules.gradual`. Scores are trained as edge-popup's are, so that what has gone comes
back when its score does. Edge-popup itself (Ramanujan et al., 2020) uses `keep` weights throughout:
few, while scores are still random.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxtickets import masks, schedules
from jaxtickets.gates import edge_popup
from jaxtickets.gates.base import Gate, Scale, unscaled
from jaxtickets.types import Array, Keep, Key, Params, Prunable, Scores

BEGIN, UNTIL = 0.5, 0.6
"""Share of the weights at first, and share of the training after which no more go."""


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
      steps: of the training, 1 or more.
      begin: share of the weights that are used at first, above 0, at most 1; of each leaf where
        `keep` is a count for each. Nothing falls where it is below what is kept.
      until: share of the training at which `keep` is reached, above 0, at most 1.

    Raises:
      ValueError: `steps`, `begin` or `until` is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: must be those of the training, 1 or more")
    for name, share in (("begin", begin), ("until", until)):
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share}: must be above 0 and at most 1")

    def used(step: Array, params: Params) -> Keep:
        """How many weights are used in the training step after so many."""
        sizes = {path: math.prod(s) for path, s in masks.shapes(params, prunable).items()}
        left = schedules.gradual((jnp.asarray(step) + 1) / steps, until)

        def now(last: Array, size: int) -> jax.Array:
            more = jnp.maximum(round(begin * size) - last, 0)
            return last + jnp.round(left * more).astype(jnp.int32)

        if isinstance(keep, Mapping):
            return {path: now(keep[path], size) for path, size in sizes.items()}
        return now(keep, sum(sizes.values()))

    def apply(key: Key, step: Array, scores: Scores, params: Params) -> tuple[Params, Array]:
        at = edge_popup.gate(prunable, used(step, params), scale, floor)
        return at.apply(key, step, scores, params)

    return edge_popup.gate(prunable, keep, scale, floor)._replace(apply=apply)
