"""Training speed: the number of steps until the loss falls to a target."""

from collections.abc import Sequence

import numpy as np

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array


def steps_to_reach(steps: Array, losses: Array, targets: Sequence[float]) -> np.ndarray:
    """float64`[..., targets]`: the first of `steps` at which the loss is at or below each target.

    NaN if the loss never reaches the target.

    Args:
      steps: `[points]`, ascending.
      losses: `[..., points]`, in nats.
      targets: losses, in nats.

    >>> steps_to_reach([10, 20, 30], [2.0, 0.9, 0.4], targets=[1.0, 0.5, 0.1]).tolist()
    [20.0, 30.0, nan]
    """
    check_array("the steps", steps, ("points",))
    check_array("the losses", losses, (*np.shape(losses)[:-1], *np.shape(steps)))
    check_array("the targets", targets, ("targets",))
    below = np.asarray(losses)[..., None, :] <= np.asarray(targets, float)[:, None]
    first = np.asarray(steps, float)[below.argmax(-1)]
    return np.where(below.any(-1), first, np.nan)
