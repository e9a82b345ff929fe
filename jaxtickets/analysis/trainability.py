"""Training speed: the number of steps until the loss falls to a target."""

from collections.abc import Sequence

import numpy as np

from jaxtickets.types import Array


def steps_to_reach(steps: Array, losses: Array, targets: Sequence[float]) -> np.ndarray:
    """float64`[..., targets]`: the first of `steps` at which the loss is at or below each target.

    NaN if the loss never reaches the target.

    Args:
      steps: `[points]`, ascending.
      losses: `[..., points]`, in nats.
      targets: losses, in nats.
    """
    below = np.asarray(losses)[..., None, :] <= np.asarray(targets, float)[:, None]
    first = np.asarray(steps, float)[below.argmax(-1)]
    return np.where(below.any(-1), first, np.nan)
