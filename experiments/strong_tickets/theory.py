"""What theory expects of the three constructions: their errors, and the coefficients they need."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxtickets.recipes.strong_tickets import FINEST, GOLDEN, intervals
from jaxtickets.types import Array

PER_BIT = 21 / math.log2(100)
"""Coefficients for each bit of precision in Pensia et al.'s experiment: 21 for 0.01. The two of
`nearest_sum` are for a typical weight; this is for all of some hundred thousand."""
HARD = 0.5
"""The size of a weight that is rare in trained nets, for which closest products must be dense."""


class Theory(NamedTuple):
    """The theory of a construction.

    Attributes:
      error: `error(n, targets)`: the error of a typical weight with `n` coefficients,
        float`[targets]`.
      needed: `needed(epsilon, weights)`: the coefficients with which all of so many weights have
        errors of about `epsilon` or less.
    """

    error: Callable[[int, Array], np.ndarray]
    needed: Callable[[float, int], int]


def nearest_product(n: int, targets: Array) -> np.ndarray:
    """The median distance to the nearest of `n` products of two uniform numbers in [-1, 1].

    The density of a product at `w` is `p = -log|w| / 2`; distances are distributed exponentially,
    with the mean `1 / (2 p n)`.
    """
    density = -0.5 * np.log(np.clip(np.abs(targets), 1e-9, 0.999))
    return np.asarray(0.5 * math.log(2) / (density * n))


def products_needed(epsilon: float, weights: int) -> int:
    """Distances are distributed exponentially: the largest of many is `log(weights)` means."""
    one = float(nearest_product(1, np.array([HARD]))[0]) / math.log(2)
    return math.ceil(one * math.log(max(weights, 3)) / epsilon)


def nearest_sum(n: int, targets: Array) -> np.ndarray:
    """The median distance to the nearest of the `2^n` subset sums of such products.

    A sum of each with probability one half has mean 0 and variance `n / 18`; its density `p` at `w`
    is taken for a Gaussian's, and the distance has the mean `1 / (2 p 2^n)` where the coefficients
    lie as expected. A few weights, most of whose products have the wrong sign, are off by much
    more; the median doesn't notice them.
    """
    variance = n / 18
    gauss = np.exp(-np.square(targets) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return np.asarray(0.5 * math.log(2) / (gauss * 2.0**n))


def sums_needed(epsilon: float, weights: int) -> int:
    """The published experiment's rule, whatever the number of weights."""
    del weights
    return max(1, round(PER_BIT * math.log2(1 / epsilon)))


def golden_bound(n: int, targets: Array) -> np.ndarray:
    """What is left of a target at most, if all golden intervals that `n` should fill are filled."""
    return np.full(np.shape(targets), max(GOLDEN ** intervals(n), FINEST) / GOLDEN)


def golden_needed(epsilon: float, weights: int) -> int:
    """As many as fill all intervals down to `epsilon` for all of the weights.

    Each of `m` intervals lacks a coefficient of its sign with probability `exp(-n / 2m)`.
    """
    m = 1 + math.log(epsilon) / math.log(GOLDEN)
    return math.ceil(2 * m * math.log(max(2.0, m * weights)))


THEORIES = {
    "malach": Theory(nearest_product, products_needed),
    "orseau": Theory(golden_bound, golden_needed),
    "pensia": Theory(nearest_sum, sums_needed),
}
