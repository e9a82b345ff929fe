"""Edge-popup with a density that decreases during training: gradual pruning of scores.

Training starts with many weights in use and uses fewer at each step, until a share `until` of the
training is over. With t the share that is over,

    used(t) = keep + (begin · size - keep) (1 - t / until)^3,

the decay of `schedules.gradual`. Scores are trained as in edge-popup, so that an unused weight
returns when its score rises again. Edge-popup itself (Ramanujan et al., 2020) uses `keep` weights
throughout, also while the scores are still random.
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
"""The share of weights in use at first, and the share of training at which `keep` is reached."""


def gate(
    prunable: Prunable,
    keep: Keep,
    scale: Scale = unscaled,
    floor: Keep = 0,
    steps: int = 0,
    begin: float = BEGIN,
    until: float = UNTIL,
) -> Gate:
    """Uses the weights with the highest |s|: fewer of them at each step, exactly `keep` at the end.

    Args:
      prunable, keep, scale, floor: see `edge_popup.gate`; `scale` receives the mask of each step.
      steps: the number of training steps, 1 or more.
      begin: the share of weights in use at first, in (0, 1]; of each leaf if `keep` is a count for
        each leaf. If it is below what is kept, the number in use stays constant.
      until: the share of training at which `keep` is reached, in (0, 1].

    Raises:
      ValueError: `steps`, `begin` or `until` is out of range.

    >>> made, key = gate(("w",), keep=1, steps=10, begin=1.0), jax.random.key(0)
    >>> params, scores = {"w": jnp.ones(8)}, {"w": jnp.arange(8.0)}
    >>> [int(made.apply(key, step, scores, params, 1.0)[0]["w"].sum()) for step in (0, 2, 9)]
    [5, 2, 1]
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: must be the number of training steps, 1 or more")
    for name, share in (("begin", begin), ("until", until)):
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share}: must be above 0 and at most 1")

    def used(step: Array, params: Params) -> Keep:
        """The number of weights in use in the training step that follows `step` steps."""
        sizes = {path: math.prod(s) for path, s in masks.shapes(params, prunable).items()}
        left = schedules.gradual((jnp.asarray(step) + 1) / steps, until)

        def now(last: Array, size: int) -> jax.Array:
            more = jnp.maximum(round(begin * size) - last, 0)
            return last + jnp.round(left * more).astype(jnp.int32)

        if isinstance(keep, Mapping):
            return {path: now(keep[path], size) for path, size in sizes.items()}
        return now(keep, sum(sizes.values()))

    def apply(
        key: Key, step: Array, scores: Scores, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        at = edge_popup.gate(prunable, used(step, params), scale, floor)
        return at.apply(key, step, scores, params, strength)

    return edge_popup.gate(prunable, keep, scale, floor)._replace(apply=apply)
