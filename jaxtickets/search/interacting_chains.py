"""What the chains of one search do for each other between two chunks of steps, by name.

A group is chains over the same weights at the same density. All functions are of a group's stacked
states, leading axis chains, and of their memory, whose leaves have that axis too, so that both can
be cut into blocks and spread over devices between two meetings.
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
"""Of temperatures."""


class Between(NamedTuple):
    """When a group meets.

    Attributes:
      rounds: int32, how many chunks there are.
      temperature: of the plan at the end of the last chunk.
      next: of the plan as the next one begins.
    """

    rounds: Array
    temperature: Array
    next: Array


class Rules(NamedTuple):
    """How a group meets; static.

    Attributes:
      ladder: of replica exchange, the hottest rung's temperature over the coldest's.
      replaced: of crossover and restarts, the share of chains that gives way.
      space: of the bits that are crossed.
      floor: see `genetic.crossover`.
    """

    ladder: float
    replaced: float
    space: Space
    floor: int


class Together(NamedTuple):
    """An interaction.

    Attributes:
      begin: `begin(states) -> (states, memory)`, before the first chunk.
      meet: `meet(key, kernel, states, memory, between) -> (states, memory)`, between two chunks;
        the key is consumed.
    """

    begin: Callable[[State], tuple[State, PyTree]]
    meet: Callable[[Key, Kernel, State, PyTree, Between], tuple[State, PyTree]]


def exchanging(rules: Rules) -> Together:
    """Replica exchange: the plan's temperature is the coldest rung's, the others are hotter.

    In the first half of the rounds, at each power of two from 8 on, the rungs are moved so that all
    neighbours refuse as often (`exchange.adapt`); from then on the ladder stays as it is.
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
    """Population annealing: resampled as the plan cools; where it is heated, all go on alike."""

    def meet(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        now = states.scale * between.temperature
        colder = states.scale * jnp.minimum(between.temperature, between.next)
        return population.cool(key, states, now, colder)[0], memory

    return Together(_at_one_temperature, meet)


def crossing(rules: Rules) -> Together:
    """Crossover: the worst chains give way to children of winners of tournaments of two."""

    def meet(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        many = replaced(rules.replaced, states.energy.shape[0])
        return genetic.breed(key, kernel, rules.space, states, many, 2, rules.floor), memory

    return Together(_at_one_temperature, meet)


def restarting(rules: Rules) -> Together:
    """Restarts: the worst chains begin again at the best mask that any has met."""

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
"""By name."""


def replaced(share: float, chains: int) -> int:
    """How many of the chains give way: at least one, and not all."""
    return min(max(1, round(share * chains)), chains - 1)


def _told(ladder: Ladder, chains: int) -> Ladder:
    """The ladder, known to each chain."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * chains), ladder)


def _at_one_temperature(states: State) -> tuple[State, PyTree]:
    """All chains at the mean of the temperatures that they were found to need."""
    return states._replace(scale=jnp.full_like(states.scale, _mean_scale(states))), ()


def _mean_scale(states: State) -> Array:
    """Above 0, also where no neighbour was worse: inverse temperatures must be finite."""
    return jnp.maximum(jnp.mean(states.scale), LEAST_SCALE)
