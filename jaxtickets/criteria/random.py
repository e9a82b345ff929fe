"""Random: the baseline of every criterion."""

from jaxtickets import masks
from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Key, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """Independent uniform scores; the key is consumed."""
    return masks.random_scores(key, evidence.params, masks.paths(evidence.params))
