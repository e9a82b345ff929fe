"""One-shot pruning: score once, keep the best, go back to the initialisation."""

import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.criteria.base import Criterion, Evidence
from jaxtickets.types import Keep, Key, Prunable, Ticket


def run(
    key: Key,
    criterion: Criterion,
    evidence: Evidence,
    prunable: Prunable,
    keep: Keep,
    floor: Keep = 0,
) -> Ticket:
    """The ticket of a criterion's highest scores, with the parameters at initialisation.

    With `magnitude` on trained weights: the one-shot winning ticket of Frankle and Carbin, 2019,
    section 2. With a criterion on untrained weights: pruning at initialisation.

    Args:
      key: consumed by the criterion.
      criterion: what ranks the weights.
      evidence: what it looks at.
      prunable: the leaves that are ranked.
      keep, floor: as in `masks.select`.
    """
    mask = masks.select(criterion(key, evidence), prunable, keep, floor)
    return Ticket(evidence.init_params, evidence.stats, mask, jnp.int32(0))
