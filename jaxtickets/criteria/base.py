"""What a criterion is given, and what it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtickets.types import Key, Loss, Mask, Params, Scores, Split, Stats


class Evidence(NamedTuple):
    """All that a criterion may look at; each looks at its own part, the rest may be None.

    Attributes:
      init_params: parameters at initialisation.
      params: parameters after training (or those to be scored, at initialisation).
      stats: batch statistics that belong to `params`.
      mask: the mask so far.
      batches: stacked training batches: `Split` with a leading axis of batches.
      loss: the training loss.
    """

    init_params: Params
    params: Params
    stats: Stats
    mask: Mask
    batches: Split | Any
    loss: Loss | Any


Criterion = Callable[[Key, Evidence], Scores]
"""`score(key, evidence) -> scores`: PyTree of float like the parameters; higher is kept first."""
