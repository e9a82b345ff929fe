"""Interactions of the chains of one search between two chunks of steps, by name.

A group is a set of chains over the same weights at the same density. All functions take the stacked
states of a group, with a leading axis of chains, and the group's memory, whose leaves have the same
leading axis. States and memory can thus be cut into blocks and spread over devices between two
interactions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search import exchange, genetic, population
from jaxtickets.search.annealing import Kernel, State
from jaxtickets.search.exchange import Ladder
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Key, PyTree

LEAST_SCALE = 1e-9
"""The smallest mean scale of temperatures, so that inverse temperatures are finite."""


class Between(NamedTuple):
    """The time of an interaction, as scalars.

    Attributes:
      rounds: int32, the number of chunks of the whole search.
      temperature: float32, the planned temperature at the end of the last chunk.
      next: float32, the planned temperature at the start of the next chunk.
    """

    rounds: Array
    temperature: Array
    next: Array


class Rules(NamedTuple):
    """The settings of the interactions; static.

    Attributes:
      ladder: for replica exchange, the ratio of the hottest rung's temperature to the coldest's.
      replaced: for crossover and restarts, the share of chains that is replaced.
      space: for crossover, the space of the bits.
      floor: for crossover, see `genetic.crossover`.
    """

    ladder: float
    replaced: float
    space: Space
    floor: int


class Together(NamedTuple):
    """An interaction, as pure functions.

    Attributes:
      begin: `begin(states) -> (states, memory)`, before the first chunk.
      meet: `meet(key, kernel, states, memory, between) -> (states, memory)`, between two chunks;
        the key is consumed.
    """

    begin: Callable[[State], tuple[State, PyTree]]
    meet: Callable[[Key, Kernel, State, PyTree, Between], tuple[State, PyTree]]


def exchanging(rules: Rules) -> Together:
    """Replica exchange: the planned temperature is that of the coldest rung; the others are hotter.

    In the first half of the rounds, at each power of two from 8 on, `exchange.adapt` moves the
    rungs. After that the ladder stays fixed.
    """

    def begin(states: State) -> tuple[State, PyTree]:
        chains = states.energy.shape[0]
        rungs = jnp.geomspace(1.0, rules.ladder, chains)
        ladder = exchange.begin(_mean_scale(states) * rungs)
        return exchange.place(ladder, states), _told(ladder, chains)

    def meet(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        ladder: Ladder = jax.tree.map(lambda leaf: leaf[0], memory)
        ladder = exchange.swap(key, ladder, states.energy, between.temperature)
        early = 2 * ladder.round <= between.rounds
        power = (ladder.round & (ladder.round - 1)) == 0
        moved = (ladder.round >= 8) & power & early
        ladder = jax.tree.map(
            lambda new, old: jnp.where(moved, new, old), exchange.adapt(ladder), ladder
        )
        return exchange.place(ladder, states), _told(ladder, states.energy.shape[0])

    return Together(begin, meet)


def populating(rules: Rules) -> Together:
    """Population annealing: resamples when the plan cools; changes nothing when it heats."""

    def meet(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        now = states.scale * between.temperature
        colder = states.scale * jnp.minimum(between.temperature, between.next)
        return population.cool(key, states, now, colder)[0], memory

    return Together(_at_one_temperature, meet)


def crossing(rules: Rules) -> Together:
    """Crossover: replaces the worst chains by children of winners of tournaments of two."""

    def meet(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        many = replaced(rules.replaced, states.energy.shape[0])
        return genetic.breed(key, kernel, rules.space, states, many, 2, rules.floor), memory

    return Together(_at_one_temperature, meet)


def restarting(rules: Rules) -> Together:
    """Restarts: restarts the worst chains at the best mask that any chain has met."""

    def meet(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        many = replaced(rules.replaced, states.energy.shape[0])
        return genetic.restart(key, kernel, states, many), memory

    return Together(_at_one_temperature, meet)


INTERACTIONS: dict[str, Callable[[Rules], Together] | None] = {
    "none": None,
    "exchange": exchanging,
    "population": populating,
    "crossover": crossing,
    "restart": restarting,
}
"""Name -> the interaction's factory; None for independent chains."""


def replaced(share: float, chains: int) -> int:
    """The number of chains to replace: at least one, and not all."""
    return min(max(1, round(share * chains)), chains - 1)


def _told(ladder: Ladder, chains: int) -> Ladder:
    """The ladder, repeated for each chain."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * chains), ladder)


def _at_one_temperature(states: State) -> tuple[State, PyTree]:
    """Gives all chains the mean of their temperature scales."""
    return states._replace(scale=jnp.full_like(states.scale, _mean_scale(states))), ()


def _mean_scale(states: State) -> Array:
    """float32 scalar, at least `LEAST_SCALE`, also if burn-in found no worse neighbour."""
    return jnp.maximum(jnp.mean(states.scale), LEAST_SCALE)
