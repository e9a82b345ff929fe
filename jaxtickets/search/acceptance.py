"""Acceptance: does the walk move to the mask that was proposed?

A rule is `accept(key, temperature, energy, proposed, memory) -> (accepted, memory)`; the memory is
`Running`, which most rules pass on untouched. The key is consumed.
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


Accept = Callable[[Key, Array, Array, Array, Running], tuple[Array, Running]]


def metropolis(
    key: Key, temperature: Array, energy: Array, proposed: Array, running: Running
) -> tuple[Array, Running]:
    """Accept with probability `min(1, exp(-(proposed - energy) / T))`; Metropolis et al., 1953."""
    return _boltzmann(key, temperature, proposed - energy), running


def greedy(
    key: Key, temperature: Array, energy: Array, proposed: Array, running: Running
) -> tuple[Array, Running]:
    """Accept what isn't worse: hill climbing, with moves along plateaus."""
    del key, temperature
    return proposed <= energy, running


def threshold(
    key: Key, temperature: Array, energy: Array, proposed: Array, running: Running
) -> tuple[Array, Running]:
    """Accept what is worse by at most T; Dueck and Scheuer, "Threshold accepting", 1990."""
    del key
    return proposed - energy <= temperature, running


def running_mean(
    key: Key, temperature: Array, energy: Array, proposed: Array, running: Running
) -> tuple[Array, Running]:
    """Metropolis against the mean of the energies accepted at this temperature, m.

    Accept with probability `min(1, exp(-(proposed - m) / T))`; an accepted energy enters the mean.
    `new_level` carries the mean to the next temperature as its first member. The annealing thesis
    (2020), whose accuracies in % divided by 100 are one minus the error rates here.
    """
    del energy
    accepted = _boltzmann(key, temperature, proposed - running.mean)
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
    "running_mean": running_mean,
}


def _boltzmann(key: Key, temperature: Array, rise: Array) -> Array:
    chance = jnp.exp(-jnp.maximum(rise, 0.0) / jnp.maximum(temperature, 1e-30))
    return jax.random.uniform(key) < chance
