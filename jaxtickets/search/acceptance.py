"""Acceptance: does the walk move to the mask that was proposed?

A rule decides by the energies here and there, E and E', at a temperature T; most rules carry no
memory and are functions `(key, temperature, energy, proposed, log_ratio) -> accepted`, whose key is
consumed. `log_ratio`, `ln q(back) - ln q(forth)`, corrects for proposals that aren't symmetric
(Hastings, 1970); the rules that draw no chance have no use for it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key, PyTree

Memoryless = Callable[[Key, Array, Array, Array, Array], Array]
"""`accept(key, temperature, energy, proposed, log_ratio) -> bool`."""


class Rule(NamedTuple):
    """An acceptance rule.

    Attributes:
      init: `init(energy) -> memory`, at the first point's energy.
      accept: `accept(key, temperature, energy, proposed, log_ratio, memory) -> (accepted, memory)`;
        the memory is that of an accepted proposal. The key is consumed.
      new_level: `new_level(memory, begins) -> memory`: the memory once a new temperature level
        begins, where the bool `begins` says so.
    """

    init: Callable[[Array], PyTree]
    accept: Callable[[Key, Array, Array, Array, Array, PyTree], tuple[Array, PyTree]]
    new_level: Callable[[PyTree, Array], PyTree]


def memoryless(accept: Memoryless) -> Rule:
    """The rule of a function without a memory."""

    def with_memory(
        key: Key,
        temperature: Array,
        energy: Array,
        proposed: Array,
        log_ratio: Array,
        memory: PyTree,
    ) -> tuple[Array, PyTree]:
        return accept(key, temperature, energy, proposed, log_ratio), memory

    return Rule(lambda energy: (), with_memory, lambda memory, begins: memory)


def metropolis(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept with probability `min(1, exp(-(E' - E) / T + log_ratio))`.

    Metropolis et al., 1953; Hastings, 1970. It leaves `exp(-E / T)` unchanged.
    """
    return _boltzmann(key, temperature, proposed - energy, log_ratio)


def greedy(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept what isn't worse: hill climbing, with moves along plateaus."""
    del key, temperature, log_ratio
    return proposed <= energy


def threshold(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept what is worse by at most T; Dueck and Scheuer, "Threshold accepting", 1990."""
    del key, log_ratio
    return proposed - energy <= temperature


def always(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept all, and at T = 0 what isn't worse: for proposals that know where to go."""
    del key, log_ratio
    return jnp.isfinite(proposed) & ((temperature > 0) | (proposed <= energy))


class Running(NamedTuple):
    """The memory of `running_mean`: float32 scalars.

    Attributes:
      mean: of the energies accepted at this temperature.
      count: how many went into it.
    """

    mean: Array
    count: Array


def running_mean(start: float | None = None) -> Rule:
    """Metropolis against the mean of the energies accepted at this temperature, m.

    Accept with probability `min(1, exp(-(E' - m) / T + log_ratio))`; what is accepted enters the
    mean. At a new temperature the mean so far counts as one energy. The annealing thesis (2020);
    its accuracies in % divided by 100 are one minus the error rates here.

    Args:
      start: what the mean starts at; None: the first energy.
    """

    def init(energy: Array) -> Running:
        first = energy if start is None else jnp.asarray(start, energy.dtype)
        return Running(first, jnp.float32(1))

    def accept(
        key: Key,
        temperature: Array,
        energy: Array,
        proposed: Array,
        log_ratio: Array,
        memory: Running,
    ) -> tuple[Array, Running]:
        del energy
        accepted = _boltzmann(key, temperature, proposed - memory.mean, log_ratio)
        count = memory.count + 1
        return accepted, Running(memory.mean + (proposed - memory.mean) / count, count)

    def new_level(memory: Running, begins: Array) -> Running:
        return Running(memory.mean, jnp.where(begins, jnp.float32(1), memory.count))

    return Rule(init, accept, new_level)


ACCEPTANCES: dict[str, Rule] = {
    "metropolis": memoryless(metropolis),
    "greedy": memoryless(greedy),
    "threshold": memoryless(threshold),
    "always": memoryless(always),
    "running_mean": running_mean(),
}


def _boltzmann(key: Key, temperature: Array, rise: Array, log_ratio: Array | float) -> jax.Array:
    chance = jnp.exp(jnp.minimum(log_ratio - rise / jnp.maximum(temperature, 1e-30), 0.0))
    return jax.random.uniform(key) < chance
