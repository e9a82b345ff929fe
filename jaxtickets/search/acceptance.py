"""Acceptance rules: does the walk move to the proposed mask?

A rule compares the current energy E with the proposed energy E' at a temperature T. Most rules have
no memory: they are functions `(key, temperature, energy, proposed, log_ratio) -> accepted`, which
consume the key. `log_ratio`, `ln q(x | x') - ln q(x' | x)`, corrects for asymmetric proposals
(Hastings, 1970); deterministic rules ignore it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Key, PyTree

Memoryless = Callable[[Key, Array, Array, Array, Array], Array]
"""`accept(key, temperature, energy, proposed, log_ratio) -> bool`."""


class Rule(NamedTuple):
    """An acceptance rule.

    Attributes:
      init: `init(energy) -> memory`, from the energy of the first point.
      accept: `accept(key, temperature, energy, proposed, log_ratio, memory) -> (accepted, memory)`.
        The returned memory is valid if the proposal is accepted; otherwise the caller keeps the old
        one. The key is consumed.
      new_level: `new_level(memory, begins) -> memory`: updates the memory where a new temperature
        level begins; `begins` is a bool scalar.
    """

    init: Callable[[Array], PyTree]
    accept: Callable[[Key, Array, Array, Array, Array, PyTree], tuple[Array, PyTree]]
    new_level: Callable[[PyTree, Array], PyTree]


def memoryless(accept: Memoryless) -> Rule:
    """The rule of a function that has no memory.

    >>> rule = memoryless(greedy)
    >>> key, memory = jax.random.key(0), rule.init(0.5)
    >>> rule.accept(key, 1.0, 0.5, 0.4, 0.0, memory), rule.accept(key, 1.0, 0.5, 0.6, 0.0, memory)
    ((True, ()), (False, ()))
    """

    def with_memory(
        key: Key,
        temperature: Array,
        energy: Array,
        proposed: Array,
        log_ratio: Array,
        memory: PyTree,
    ) -> tuple[Array, PyTree]:
        _check_scalars(temperature, energy, proposed, log_ratio)
        return accept(key, temperature, energy, proposed, log_ratio), memory

    return Rule(lambda energy: (), with_memory, lambda memory, begins: memory)


def metropolis(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept with probability `min(1, exp(-(E' - E) / T + log_ratio))`.

    Metropolis et al., 1953; Hastings, 1970. The rule leaves the distribution `exp(-E / T)`
    invariant.

    >>> key = jax.random.key(0)
    >>> bool(metropolis(key, 0.1, energy=0.5, proposed=0.4))
    True
    >>> bool(metropolis(key, 0.1, energy=0.5, proposed=100.0))
    False
    """
    return _boltzmann(key, temperature, proposed - energy, log_ratio)


def greedy(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept if `E' <= E`: hill climbing that also moves along plateaus.

    >>> key = jax.random.key(0)
    >>> [greedy(key, 0.1, energy=0.5, proposed=proposed) for proposed in (0.4, 0.5, 0.6)]
    [True, True, False]
    """
    del key, temperature, log_ratio
    return proposed <= energy


def threshold(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept if `E' - E <= T`: Dueck and Scheuer, "Threshold accepting", 1990.

    >>> key = jax.random.key(0)
    >>> [threshold(key, 0.25, energy=0.5, proposed=proposed) for proposed in (0.75, 1.0)]
    [True, False]
    """
    del key, log_ratio
    return proposed - energy <= temperature


def always(
    key: Key, temperature: Array, energy: Array, proposed: Array, log_ratio: Array | float = 0.0
) -> jax.Array:
    """Accept every finite E' if T > 0, and `E' <= E` at T = 0; for informed proposals.

    >>> key = jax.random.key(0)
    >>> [bool(always(key, 0.1, energy=0.5, proposed=proposed)) for proposed in (9.0, np.inf)]
    [True, False]
    """
    del key, log_ratio
    return jnp.isfinite(proposed) & ((temperature > 0) | (proposed <= energy))


class Running(NamedTuple):
    """The memory of `running_mean`.

    Attributes:
      mean: float scalar, the mean of the energies accepted at this temperature.
      count: float32 scalar, the number of energies in that mean.
    """

    mean: Array
    count: Array


def running_mean(start: float | None = None) -> Rule:
    """Metropolis against m, the mean of the energies accepted at this temperature.

    Accept with probability `min(1, exp(-(E' - m) / T + log_ratio))`; an accepted energy enters the
    mean. At a new temperature, the mean so far counts as one energy. The rule is that of the
    annealing thesis (2020), whose accuracies in %, divided by 100, are one minus the error rates
    here.

    Args:
      start: the initial mean; None starts from the energy of the first point.

    >>> rule = running_mean()
    >>> memory = rule.init(jnp.float32(0.5))
    >>> accepted, memory = rule.accept(jax.random.key(0), 0.1, 0.5, 0.25, 0.0, memory)
    >>> bool(accepted), float(memory.mean), float(memory.count)
    (True, 0.375, 2.0)
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
        _check_scalars(temperature, energy, proposed, log_ratio)
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


def _check_scalars(temperature: Array, energy: Array, proposed: Array, log_ratio: Array) -> None:
    check_array("the temperature", temperature, ())
    check_array("the energy", energy, ())
    check_array("the proposed energy", proposed, ())
    check_array("the log ratio of proposals", log_ratio, ())


def _boltzmann(key: Key, temperature: Array, rise: Array, log_ratio: Array | float) -> jax.Array:
    chance = jnp.exp(jnp.minimum(log_ratio - rise / jnp.maximum(temperature, 1e-30), 0.0))
    return jax.random.uniform(key) < chance
