"""Schedules: step -> value, as pure functions that can be traced.

Temperatures are in units of the energy, neighbourhood sizes in swapped weights. All schedules are
defined for steps 0 to `steps - 1`. Learning-rate schedules are optax's.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxtickets.types import Array, Schedule


def constant(start: float, steps: int, end: float | None = None) -> Schedule:
    """`start` at every step; `end` is ignored.

    >>> [float(constant(0.5, steps=3)(step)) for step in range(3)]
    [0.5, 0.5, 0.5]
    """
    del steps, end
    return lambda step: jnp.full(jnp.shape(step), start, jnp.float32)


def geometric(start: float, steps: int, end: float) -> Schedule:
    """`start · (end / start)^(step / (steps - 1))`: multiplies by the same factor at every step.

    >>> schedule = geometric(1.0, steps=3, end=0.01)
    >>> [round(float(schedule(step)), 3) for step in range(3)]
    [1.0, 0.1, 0.01]
    """
    return lambda step: start * (end / start) ** _progress(step, steps)


def linear(start: float, steps: int, end: float) -> Schedule:
    """`start + (end - start) · step / (steps - 1)`.

    >>> schedule = linear(1.0, steps=3, end=0.0)
    >>> [float(schedule(step)) for step in range(3)]
    [1.0, 0.5, 0.0]
    """
    return lambda step: start + (end - start) * _progress(step, steps)


def cosine(start: float, steps: int, end: float) -> Schedule:
    """`end + (start - end) · (1 + cos(π · step / (steps - 1))) / 2`.

    >>> schedule = cosine(1.0, steps=5, end=0.0)
    >>> [round(float(schedule(step)), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    return lambda step: end + (start - end) * (1 + jnp.cos(jnp.pi * _progress(step, steps))) / 2


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "geometric": geometric,
    "linear": linear,
    "cosine": cosine,
}


def _progress(step: Array, steps: int) -> Array:
    return jnp.asarray(step, jnp.float32) / max(steps - 1, 1)


def reheat(schedule: Schedule, period: int) -> Schedule:
    """`schedule`, restarted every `period` steps; construct it for `period` steps.

    >>> schedule = reheat(linear(1.0, steps=3, end=0.0), period=3)
    >>> [float(schedule(step)) for step in range(6)]
    [1.0, 0.5, 0.0, 1.0, 0.5, 0.0]
    """
    return lambda step: schedule(jnp.asarray(step) % period)


def gradual(t: Array, by: float) -> Array:
    """`(1 - min(t / by, 1))^3`: the share of a decay that remains after a share t of training.

    Zhu and Gupta, "To prune, or not to prune", 2017, equation 1.

    Args:
      t: float in [0, 1], of any shape; a NumPy array gives a NumPy array.
      by: the share of training at which the decay is complete, above 0.

    >>> gradual(np.array([0.0, 0.25, 0.5, 1.0]), by=0.5).tolist()
    [1.0, 0.125, 0.0, 0.0]
    """
    return (1 - (t / by).clip(max=1)) ** 3


def table(values: np.ndarray) -> Schedule:
    """The schedule that reads float `values[steps]`; NaN past the end, where it is not clipped.

    >>> schedule = table(np.array([3.0, 1.0]))
    >>> [float(schedule(step)) for step in range(3)]
    [3.0, 1.0, nan]
    """
    array = jnp.asarray(values)
    return lambda step: array.at[step].get(mode="fill")


def growing_levels(steps: int, first: float, growth: float, most: float) -> np.ndarray:
    """int32`[steps]`: the temperature level of each step, with levels of growing length.

    Level i lasts `floor(min(first · growth^i, most))` steps. In the annealing thesis (2020), levels
    grow by a factor of 1.005, from 1 to 50 steps for its MLP and from 2 to 10 for its CNN.

    >>> growing_levels(6, first=1, growth=2, most=3).tolist()
    [0, 1, 1, 2, 2, 2]
    """
    levels: list[int] = []
    length, level = float(first), 0
    while len(levels) < steps:
        levels += [level] * int(min(length, most))
        length, level = length * growth, level + 1
    return np.asarray(levels[:steps], np.int32)


def sawtooth(levels: int, start: int, shrink: float = 0.99) -> np.ndarray:
    """int32`[levels]`: the thesis's neighbourhood size, the number h of ones to switch off.

    h starts at `start`. At each level, h = max(1, floor(0.99 h)); when h < 0.5 h_ref, h = max(1,
    floor(0.75 h_ref)) and h_ref = h. The annealing thesis (2020).

    >>> sawtooth(6, start=8, shrink=0.5).tolist()
    [8, 4, 6, 3, 4, 2]
    """
    h = reference = start
    values = []
    for _ in range(levels):
        values.append(h)
        h = max(1, int(shrink * h))
        if h < 0.5 * reference:
            h = reference = max(1, int(0.75 * reference))
    return np.asarray(values, np.int32)
