"""Criteria of units: scores of filters and neurons, `score(key, evidence, wiring)`.

The result is `{group: float[units]}`.
"""

from collections.abc import Callable

from jaxtickets.criteria.base import Evidence, UnitCriterion
from jaxtickets.criteria.units import batch_norm, geometric_median, gradient, norms, random
from jaxtickets.criteria.variants import resolve
from jaxtickets.types import Array, Key, Wiring

UNIT_CRITERIA: dict[str, UnitCriterion] = {
    "mean_abs": UnitCriterion(norms.mean_abs, weights_alone=True),
    "l1": UnitCriterion(norms.l1, weights_alone=True),
    "l2": UnitCriterion(norms.l2, weights_alone=True),
    "sign_mean": UnitCriterion(norms.sign_mean),
    "fpgm": UnitCriterion(geometric_median.score, weights_alone=True),
    "batch_norm": UnitCriterion(batch_norm.scale),
    "abs_batch_norm": UnitCriterion(batch_norm.absolute),
    "gradient": UnitCriterion(gradient.score),
    "random": UnitCriterion(random.score, draws=True),
}


def inverted(criterion: UnitCriterion) -> UnitCriterion:
    """The negated scores, which reverse the order.

    >>> constant = UnitCriterion(lambda key, evidence, wiring: {"fc1": np.array([3.0, 4.0])})
    >>> inverted(constant).score(None, None, ())["fc1"].tolist()
    [-3.0, -4.0]
    """

    def score(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
        scores = criterion.score(key, evidence, wiring)
        return {name: -values for name, values in scores.items()}

    return criterion._replace(score=score)


UNIT_VARIANTS: dict[str, Callable[[UnitCriterion], UnitCriterion]] = {"inverted": inverted}


def find_unit(name: str) -> UnitCriterion:
    """The criterion of units of a name; `inverted_l1` is the inverse of `l1`.

    Raises:
      ValueError: an unknown name.

    >>> find_unit("l1").weights_alone, find_unit("inverted_random").draws
    (True, True)
    """
    return resolve(name, UNIT_CRITERIA, UNIT_VARIANTS, "unit criterion")


__all__ = ["UNIT_CRITERIA", "UNIT_VARIANTS", "find_unit", "inverted"]
