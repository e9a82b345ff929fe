"""What is a filter or neuron worth? `score(key, evidence, wiring) -> {group: scores}`."""

from jaxtickets.criteria.base import UnitCriterion
from jaxtickets.criteria.units import batch_norm, geometric_median, norms, slope, uniform

UNIT_CRITERIA: dict[str, UnitCriterion] = {
    "mean_abs": norms.mean_abs,
    "l1": norms.l1,
    "l2": norms.l2,
    "sign_mean": norms.sign_mean,
    "fpgm": geometric_median.score,
    "batch_norm": batch_norm.scale,
    "abs_batch_norm": batch_norm.absolute,
    "gradient": slope.score,
    "random": uniform.score,
}


def inverted(criterion: UnitCriterion) -> UnitCriterion:
    """The scores' negatives: what was kept first goes first."""
    return lambda key, evidence, wiring: {
        name: -scores for name, scores in criterion(key, evidence, wiring).items()
    }


def find_unit(name: str) -> UnitCriterion:
    """The criterion of units of that name; `inverted_l1` is the inverse of `l1`.

    Raises:
      ValueError: there is none.
    """
    plain = name.removeprefix("inverted_")
    if plain not in UNIT_CRITERIA:
        known = ", ".join(UNIT_CRITERIA)
        raise ValueError(f"unknown unit criterion '{name}': {known}, or one after inverted_")
    return UNIT_CRITERIA[plain] if plain == name else inverted(UNIT_CRITERIA[plain])


__all__ = ["UNIT_CRITERIA", "find_unit", "inverted"]
