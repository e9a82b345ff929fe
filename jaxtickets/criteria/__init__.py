"""Criteria: what is a weight worth? `score(key, evidence) -> scores`, a file each."""

from jaxtickets.criteria import fisher, grasp, obd, plane, random, snip, synflow, taylor
from jaxtickets.criteria.base import Criterion, Evidence, UnitCriterion
from jaxtickets.criteria.variants import VARIANTS

CRITERIA: dict[str, Criterion] = {
    **plane.CRITERIA,
    "random": random.score,
    "snip": snip.score,
    "grasp": grasp.score,
    "synflow": synflow.score,
    "taylor": taylor.score,
    "fisher": fisher.score,
    "obd": obd.score,
}


def find(name: str) -> Criterion:
    """The criterion of that name, which may begin with variants: `inverted_normalised_snip`.

    Raises:
      ValueError: there is none.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    for word, variant in VARIANTS.items():
        if name.startswith(f"{word}_"):
            return variant(find(name.removeprefix(f"{word}_")))
    known = ", ".join(CRITERIA)
    raise ValueError(
        f"unknown criterion '{name}': one of {known}, or one of these after "
        f"{' or '.join(f'{word}_' for word in VARIANTS)}"
    )


__all__ = ["CRITERIA", "VARIANTS", "Criterion", "Evidence", "UnitCriterion", "find"]
