"""How fast a net trains: the steps that its loss takes to fall."""

from collections.abc import Sequence

import numpy as np

from jaxtickets.types import Array


def steps_to_reach(steps: Array, losses: Array, targets: Sequence[float]) -> np.ndarray:
    """float`[..., targets]`: the first of `steps` at which the loss is at or below each target.

    nan where it never is.

    Args:
      steps: `[points]`, ascending.
      losses: `[..., points]`.
      targets: losses, in nats.
    """
    below = np.asarray(losses)[..., None, :] <= np.asarray(targets, float)[:, None]
    first = np.asarray(steps, float)[below.argmax(-1)]
    return np.where(below.any(-1), first, np.nan)
