"""What theory expects of the three constructions: their errors, and the coefficients they need."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxtickets.recipes.strong_tickets import CONSTRUCTIONS, GOLDEN, intervals
from jaxtickets.types import Array


class Theory(NamedTuple):
    """The theory of a construction.

    Attributes:
      error: `error(n, targets)`: the expected error with `n` coefficients, float`[targets]`.
      growth: how the coefficients grow with the precision, in words.
      is_bound: whether `error` is the largest error, not the mean.
    """

    error: Callable[[int, Array], np.ndarray]
    growth: str
    is_bound: bool = False


def nearest_product(n: int, targets: Array) -> np.ndarray:
    """The mean distance to the nearest of `n` products of two uniform numbers in [-1, 1].

    The density of a product at `w` is `p = -log|w| / 2`, and the mean distance `1 / (2 p (n + 1))`
    where the products lie dense.
    """
    density = -0.5 * np.log(np.clip(np.abs(targets), 1e-9, 0.999))
    return 0.5 / (density * (n + 1))


def nearest_sum(n: int, targets: Array) -> np.ndarray:
    """The mean distance to the nearest of the `2^n` subset sums of such products.

    A sum of each with probability one half has mean 0 and variance `n / 18`; its density at `w` is
    taken for a Gaussian's, and the mean distance is `1 / (2 p 2^n)`.
    """
    variance = n / 18
    gauss = np.exp(-np.square(targets) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return np.asarray(0.5 / (gauss * 2.0**n))


def golden_bound(n: int, targets: Array) -> np.ndarray:
    """What is left of a target if all golden intervals that `n` should fill are filled."""
    return np.full(np.shape(targets), GOLDEN ** (intervals(n) - 1))


THEORIES = {
    "malach": Theory(nearest_product, "polynomial"),
    "orseau": Theory(golden_bound, "logarithmic", is_bound=True),
    "pensia": Theory(nearest_sum, "logarithmic"),
}
HARDEST = 0.5
"""The size of a weight for which `needed` answers; larger ones are rare in trained nets."""
MOST_NEEDED = 10**9


def needed(construction: str, epsilon: float, weights: int) -> int:
    """The fewest coefficients with which the largest error of many weights is about `epsilon`.

    Errors are taken for exponentially distributed: the largest of many is `log(weights)` means.

    Raises:
      ValueError: the construction can't use that many.
    """
    theory, most = THEORIES[construction], CONSTRUCTIONS[construction].most or MOST_NEEDED
    factor = 1.0 if theory.is_bound else math.log(max(weights, 3))

    def largest(n: int) -> float:
        return factor * float(theory.error(n, np.array([HARDEST]))[0])

    if largest(most) > epsilon:
        raise ValueError(
            f"{construction} reaches {largest(most):.1g} at best, with {most} coefficients a weight"
        )
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if largest(middle) <= epsilon else (middle, high)
    return high
