"""Interactions of the chains of one search between two chunks of steps, by name.

A group is a set of chains over the same weights at the same density. All functions take the stacked
states of a group, with a leading axis of chains, and the group's memory, whose leaves have the same
leading axis. States and memory can thus be cut into blocks and spread over devices between two
interactions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Interaction(NamedTuple):
    """An interaction, as pure functions.

    Attributes:
      begin: `begin(states) -> (states, memory)`, before the first chunk.
      interact: `interact(key, kernel, states, memory, between) -> (states, memory)`, between two
        chunks; the key is consumed. The kernel is that of the chains, or `()` where a walk isn't
        one of a kernel.
    """

    begin: Callable[[State], tuple[State, PyTree]]
    interact: Callable[[Key, Any, State, PyTree, Between], tuple[State, PyTree]]


def exchanging(ladder: float) -> Interaction:
    """Replica exchange: the planned temperature is that of the coldest rung; the others are hotter.

    The hottest rung's temperature is `ladder` times the coldest's. In the first half of the rounds,
    at each power of two from 8 on, `exchange.adapt` moves the rungs. After that the ladder stays
    fixed.

    >>> states = State((), jnp.zeros(2), (), (), (), scale=jnp.ones(2), log_size=(), memory=())
    >>> states, rungs = exchanging(ladder=4.0).begin(states)
    >>> [round(scale, 3) for scale in states.scale.tolist()]
    [1.0, 4.0]
    """

    def begin(states: State) -> tuple[State, PyTree]:
        chains = states.energy.shape[0]
        ratios = jnp.geomspace(1.0, ladder, chains)
        rungs = exchange.begin(_mean_scale(states) * ratios)
        return exchange.place(rungs, states), _repeated(rungs, chains)

    def interact(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        rungs: Ladder = jax.tree.map(lambda leaf: leaf[0], memory)
        rungs = exchange.swap(key, rungs, states.energy, between.temperature)
        early = 2 * rungs.round <= between.rounds
        power = (rungs.round & (rungs.round - 1)) == 0
        moved = (rungs.round >= 8) & power & early
        rungs = jax.tree.map(
            lambda new, old: jnp.where(moved, new, old), exchange.adapt(rungs), rungs
        )
        return exchange.place(rungs, states), _repeated(rungs, states.energy.shape[0])

    return Interaction(begin, interact)


def populating() -> Interaction:
    """Population annealing: resamples when the plan cools; changes nothing when it heats.

    >>> walks, energies = jnp.array([7, 8]), jnp.array([5.0, 0.0])
    >>> states = State(walks, energies, walks, energies, walks, jnp.ones(2), jnp.zeros(2), ())
    >>> cooling = Between(rounds=10, temperature=1.0, next=0.01)
    >>> states, _ = populating().interact(jax.random.key(0), (), states, (), cooling)
    >>> states.walk.tolist()  # the better chain, twice
    [8, 8]
    """

    def interact(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        now = states.scale * between.temperature
        colder = states.scale * jnp.minimum(between.temperature, between.next)
        return population.cool(key, states, now, colder)[0], memory

    return Interaction(_at_one_temperature, interact)


def crossing(replaced: float, space: Space, floor: int) -> Interaction:
    """Crossover: replaces the worst chains by children of winners of tournaments of two.

    Args:
      replaced: the share of chains that is replaced.
      space: the space of the bits.
      floor: see `genetic.crossover`.

    >>> from jaxtickets.search.space import weights
    >>> states = State((), jnp.zeros(2), (), (), (), jnp.array([1.0, 3.0]), (), ())
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> states, _ = crossing(replaced=0.5, space=space, floor=0).begin(states)
    >>> states.scale.tolist()  # children are at the temperature of their parents
    [2.0, 2.0]
    """

    def interact(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        many = replaced_count(replaced, states.energy.shape[0])
        return genetic.breed(key, kernel, space, states, many, 2, floor), memory

    return Interaction(_at_one_temperature, interact)


def restarting(replaced: float) -> Interaction:
    """Restarts: the worst chains restart at the best mask that any chain has visited.

    >>> from jaxtickets.search import annealing, energies, space, swaps
    >>> scores, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))  # the share of the scores that the mask loses
    >>> kernel = annealing.build(swaps.moves(bits, most=1), bits.mask, lost, annealing.Rules())
    >>> states = jax.vmap(kernel.init)(jax.random.split(key), jnp.eye(2, dtype=bool))
    >>> between = Between(rounds=10, temperature=1.0, next=0.5)
    >>> states, _ = restarting(replaced=0.5).interact(key, kernel, states, (), between)
    >>> kernel.point(states).tolist()
    [[False, True], [False, True]]
    """

    def interact(
        key: Key, kernel: Kernel, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        many = replaced_count(replaced, states.energy.shape[0])
        return genetic.restart(key, kernel, states, many), memory

    return Interaction(_at_one_temperature, interact)


INTERACTIONS: dict[str, Callable[..., Interaction] | None] = {
    "none": None,
    "exchange": exchanging,
    "population": populating,
    "crossover": crossing,
    "restart": restarting,
}
"""Name -> the interaction's factory, which takes what it needs of `ladder`, `replaced`, `space` and
`floor`; None for independent chains."""


def replaced_count(share: float, chains: int) -> int:
    """The number of chains to replace: at least one, and not all.

    >>> replaced_count(0.125, 16), replaced_count(0.01, 16), replaced_count(1.0, 16)
    (2, 1, 15)
    """
    return min(max(1, round(share * chains)), chains - 1)


def _repeated(ladder: Ladder, chains: int) -> Ladder:
    """The ladder with a leading axis: a copy for each chain."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * chains), ladder)


def _at_one_temperature(states: State) -> tuple[State, PyTree]:
    """Gives all chains the mean of their temperature scales."""
    return states._replace(scale=jnp.full_like(states.scale, _mean_scale(states))), ()


def _mean_scale(states: State) -> Array:
    """float32 scalar, at least `LEAST_SCALE`, also if burn-in found no worse neighbour."""
    return jnp.maximum(jnp.mean(states.scale), LEAST_SCALE)
