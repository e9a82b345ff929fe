"""How a search's temperatures and swap sizes change, by name: schedules, made from what they take.

A new one is a function and a row. All are functions of the step, see `schedules`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxtickets import schedules
from jaxtickets.types import Schedule


def _level_temperatures(start: float, levels: np.ndarray, cooling: float) -> Schedule:
    """`start · cooling^level`, of int `levels[steps]`, see `schedules.growing_levels`."""
    return schedules.table((start * cooling**levels).astype(np.float32))


TEMPERATURES: dict[str, Callable[..., Schedule]] = {
    **schedules.SCHEDULES,
    "levels": _level_temperatures,
}
"""Each takes what it needs of `start`, `end`, `steps`, `levels`, `cooling`."""


def _constant_sizes(first: float, steps: int) -> Schedule:
    """`first`, always."""
    return schedules.constant(first, steps)


def _geometric_sizes(first: float, last: float, steps: int) -> Schedule:
    """From `first` to `last` by the same factor at every step; never larger than `first`."""
    return schedules.geometric(first, steps, min(last, first))


def _sawtooth_sizes(first: float, levels: np.ndarray, most: int) -> Schedule:
    """`schedules.sawtooth` over int `levels[steps]`, never more than `most`."""
    tooth = schedules.sawtooth(int(levels.max()) + 1, int(first))
    return schedules.table(np.minimum(tooth[levels], most).astype(np.float32))


class SearchSizes(NamedTuple):
    """Sizes by name: how their schedule is made, and what is known of them.

    Attributes:
      make: makes it from what it takes of `first`, `last`, `steps`, `levels`, `most`.
      shrinks: whether swaps become smaller than the first.
      adapts: whether the kernel adapts sizes to a rate of acceptance, from the largest on.
    """

    make: Callable[..., Schedule]
    shrinks: bool = True
    adapts: bool = False


SIZES = {
    "constant": SearchSizes(_constant_sizes, shrinks=False),
    "geometric": SearchSizes(_geometric_sizes),
    "sawtooth": SearchSizes(_sawtooth_sizes),
    "adaptive": SearchSizes(_constant_sizes, adapts=True),
}
"""How the sizes of moves can change."""
