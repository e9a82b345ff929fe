"""Criteria: what is a weight worth? `score(key, evidence) -> scores`, a file each."""

from jaxtickets.criteria import magnitude, random, snip
from jaxtickets.criteria.base import Criterion, Evidence

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude.score,
    "random": random.score,
    "snip": snip.score,
}

__all__ = ["CRITERIA", "Criterion", "Evidence"]
