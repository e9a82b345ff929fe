"""Acceptance: does the walk move to the mask that was proposed?

A rule is `accept(key, temperature, energy, proposed, memory, log_ratio) -> (accepted, memory)`. The
memory is `Running`, which most rules pass on untouched. `log_ratio`, `ln q(back) - ln q(forth)`,
corrects for proposals that aren't symmetric (Hastings, 1970); the rules that draw no chance have no
use for it. The key is consumed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key


class Running(NamedTuple):
    """The mean of the energies accepted at this temperature, and how many went into it."""

    mean: Array
    count: Array


Accept = Callable[[Key, Array, Array, Array, Running, Array], tuple[Array, Running]]


def metropolis(
    key: Key,
    temperature: Array,
    energy: Array,
    proposed: Array,
    running: Running,
    log_ratio: Array | float = 0.0,
) -> tuple[Array, Running]:
    """Accept with probability `min(1, exp(-(proposed - energy) / T + log_ratio))`.

    Metropolis et al., 1953; Hastings, 1970. It leaves `exp(-energy / T)` unchanged.
    """
    return _boltzmann(key, temperature, proposed - energy, log_ratio), running


def greedy(
    key: Key,
    temperature: Array,
    energy: Array,
    proposed: Array,
    running: Running,
    log_ratio: Array | float = 0.0,
) -> tuple[Array, Running]:
    """Accept what isn't worse: hill climbing, with moves along plateaus."""
    del key, temperature, log_ratio
    return proposed <= energy, running


def threshold(
    key: Key,
    temperature: Array,
    energy: Array,
    proposed: Array,
    running: Running,
    log_ratio: Array | float = 0.0,
) -> tuple[Array, Running]:
    """Accept what is worse by at most T; Dueck and Scheuer, "Threshold accepting", 1990."""
    del key, log_ratio
    return proposed - energy <= temperature, running


def always(
    key: Key,
    temperature: Array,
    energy: Array,
    proposed: Array,
    running: Running,
    log_ratio: Array | float = 0.0,
) -> tuple[Array, Running]:
    """Accept all, and at T = 0 what isn't worse: for proposals that know where to go."""
    del key, log_ratio
    return jnp.isfinite(proposed) & ((temperature > 0) | (proposed <= energy)), running


def running_mean(
    key: Key,
    temperature: Array,
    energy: Array,
    proposed: Array,
    running: Running,
    log_ratio: Array | float = 0.0,
) -> tuple[Array, Running]:
    """Metropolis against the mean of the energies accepted at this temperature, m.

    Accept with probability `min(1, exp(-(proposed - m) / T + log_ratio))`; what is accepted enters
    the mean. `new_level` carries the mean to the next temperature as its first member. The
    annealing thesis (2020); its accuracies in % divided by 100 are one minus the error rates here.
    """
    del energy
    accepted = _boltzmann(key, temperature, proposed - running.mean, log_ratio)
    count = running.count + 1
    mean = running.mean + (proposed - running.mean) / count
    moved = Running(mean, count)
    return accepted, jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, running)


def new_level(running: Running, begins: Array) -> Running:
    """At a new temperature the mean so far counts as one energy."""
    return Running(running.mean, jnp.where(begins, jnp.float32(1), running.count))


ACCEPTANCES: dict[str, Accept] = {
    "metropolis": metropolis,
    "greedy": greedy,
    "threshold": threshold,
    "always": always,
    "running_mean": running_mean,
}


def _boltzmann(key: Key, temperature: Array, rise: Array, log_ratio: Array | float) -> Array:
    chance = jnp.exp(jnp.minimum(log_ratio - rise / jnp.maximum(temperature, 1e-30), 0.0))
    return jax.random.uniform(key) < chance
