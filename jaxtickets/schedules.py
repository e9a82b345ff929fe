"""Schedules: step -> value, as pure functions that trace.

Temperatures are in the units of the energy, neighbourhoods in swapped weights, and all schedules
are defined for steps 0 to `steps - 1`. Learning-rate schedules are optax's.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxtickets.types import Array, Schedule


def constant(start: float, steps: int, end: float | None = None) -> Schedule:
    """`start`, always; `end` is not used."""
    del steps, end
    return lambda step: jnp.full(jnp.shape(step), start, jnp.float32)


def geometric(start: float, steps: int, end: float) -> Schedule:
    """`start · (end / start)^(step / (steps - 1))`: the same factor at every step."""
    return lambda step: start * (end / start) ** _progress(step, steps)


def linear(start: float, steps: int, end: float) -> Schedule:
    """`start + (end - start) · step / (steps - 1)`."""
    return lambda step: start + (end - start) * _progress(step, steps)


def cosine(start: float, steps: int, end: float) -> Schedule:
    """`end + (start - end) · (1 + cos(π · step / (steps - 1))) / 2`."""
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
    """`schedule`, begun again every `period` steps; make it for `period` steps."""
    return lambda step: schedule(jnp.asarray(step) % period)


def gradual(t: Array, by: float) -> Array:
    """`(1 - min(t / by, 1))^3`: what of a fall is left once a share t of a training is done.

    Zhu and Gupta, "To prune, or not to prune", 2017, equation 1.

    Args:
      t: in [0, 1], of any shape; NumPy stays NumPy.
      by: the share of the training by which all has fallen, above 0.
    """
    return (1 - (t / by).clip(max=1)) ** 3


def table(values: np.ndarray) -> Schedule:
    """The schedule that reads float `values[steps]`; a step past the end is not clipped but NaN."""
    array = jnp.asarray(values)
    return lambda step: array.at[step].get(mode="fill")


def growing_levels(steps: int, first: float, growth: float, most: float) -> np.ndarray:
    """int32`[steps]`: the temperature level of each step when levels get longer and longer.

    Level i lasts `floor(min(first · growth^i, most))` steps; in the annealing thesis (2020) they
    grow by 1.005 from 1 to 50 for its MLP, from 2 to 10 for its CNN.
    """
    levels: list[int] = []
    length, level = float(first), 0
    while len(levels) < steps:
        levels += [level] * int(min(length, most))
        length, level = length * growth, level + 1
    return np.asarray(levels[:steps], np.int32)


def sawtooth(levels: int, start: int, shrink: float = 0.99) -> np.ndarray:
    """int32`[levels]`: the thesis's neighbourhood, the number h of ones that are switched off.

    h starts at `start`; at each level h = max(1, floor(0.99 h)); when h < 0.5 h_ref,
    h = max(1, floor(0.75 h_ref)) and h_ref = h. The annealing thesis (2020).
    """
    h = reference = start
    values = []
    for _ in range(levels):
        values.append(h)
        h = max(1, int(shrink * h))
        if h < 0.5 * reference:
            h = reference = max(1, int(0.75 * reference))
    return np.asarray(values, np.int32)
