"""Criteria: scores of weights. Each file defines a score; the table holds the facts about it.

A new criterion is a file with its score, a line in `CRITERIA`, and a row in the tests' table.
"""

from jaxtickets.criteria import fisher, grasp, initial_final, obd, random, snip, synflow, taylor
from jaxtickets.criteria.base import (
    Criterion,
    Evidence,
    Score,
    UnitCriterion,
    UnitScore,
    forward_passes,
)
from jaxtickets.criteria.variants import (
    VARIANTS,
    at_initialisation,
    inverted,
    normalised,
    resolve,
)

CRITERIA: dict[str, Criterion] = {
    **initial_final.CRITERIA,
    "random": Criterion(random.score, "initial", draws=True),
    "snip": Criterion(snip.score, "initial", cost=3),
    "grasp": Criterion(grasp.score, "initial", cost=6),
    "synflow": Criterion(synflow.score, "initial", rounds=100),
    "taylor": Criterion(taylor.score, cost=3),
    "fisher": Criterion(fisher.score, cost=3),
    "obd": Criterion(obd.score, cost_per_class=3),
}


def find(name: str) -> Criterion:
    """The criterion of a name, which may begin with variants: `inverted_normalised_snip`.

    Raises:
      ValueError: an unknown name.

    >>> find("snip").looks_at, find("snip").cost
    ('initial', 3)
    >>> find("inverted_magnitude").looks_at
    'trained'
    """
    return resolve(name, CRITERIA, VARIANTS, "criterion")


__all__ = [
    "CRITERIA",
    "VARIANTS",
    "Criterion",
    "Evidence",
    "Score",
    "UnitCriterion",
    "UnitScore",
    "at_initialisation",
    "find",
    "forward_passes",
    "inverted",
    "normalised",
]
