"""A generation of weight-agnostic nets: ranks, elites, tournaments, mutations.

Rewards come from `evaluation.score`, of which `runs.batch` makes a program for a population. There
is no crossover. Gaier and Ha 2019, section 3; numbers of the official code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.graphs.genome import Genome, Sizes, complexity
from jaxtickets.search.graphs.mutations import Probabilities, mutate
from jaxtickets.search.graphs.ranking import best_first
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Key

SHARED_WEIGHTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
"""The weights with which each graph is evaluated."""


class Settings(NamedTuple):
    """How a generation follows from the last; static.

    Attributes:
      mutations: the probability of each.
      cull: the share of the population, the worst, that has no children.
      elite: the share, the best, that stays as it is.
      tournament: how many individuals are drawn for a parent, with replacement; the best wins.
      simplicity: the probability that a generation is ranked by mean reward and connections;
        else it is by mean and best reward.
    """

    mutations: Probabilities = Probabilities()
    cull: float = 0.2
    elite: float = 0.2
    tournament: int = 32
    simplicity: float = 0.8


class Info(NamedTuple):
    """Diagnostics of a generation, before its change.

    Attributes:
      order: int32`[n]`: the individuals from best to worst, by which parents were chosen.
      mean, best: float32`[n]`: the reward over the shared weights; -inf of the dead.
      connections: int32`[n]`: those that are enabled.
      alive: int32 scalar: how many individuals have finite rewards.
    """

    order: Array
    mean: Array
    best: Array
    connections: Array
    alive: Array


def check(individuals: int, settings: Settings) -> None:
    """Raises ValueError, in one line, if no generation can follow.

    >>> check(10, Settings())
    >>> check(10, Settings(cull=2.0))
    Traceback (most recent call last):
    ValueError: cull=2.0: must be from 0 to 1
    """
    for name in ("cull", "elite", "simplicity"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name}={getattr(settings, name)}: must be from 0 to 1")
    if settings.tournament < 1:
        raise ValueError(f"tournament={settings.tournament}: must be 1 or more")
    chances = settings.mutations
    if min(chances) < 0 or abs(sum(chances) - 1) > 1e-6:
        listed = ",".join(f"{chance:g}" for chance in chances)
        raise ValueError(f"mutations={listed}: must be probabilities that sum to 1")
    elites, parents = _counts(individuals, settings)
    if individuals < 2 or parents < 1 or elites >= individuals:
        raise ValueError(
            f"population={individuals}: with elite={settings.elite} and cull={settings.cull} there"
            f" are {elites} elites and {parents} parents; a parent and a child are needed"
        )


def generation(
    key: Key, population: Genome, rewards: Array, sizes: Sizes, settings: Settings
) -> tuple[Genome, Info]:
    """The next population: the elites, then children of parents that won tournaments.

    An individual with a reward that isn't finite is ranked last. If all are such, `Info.alive` is
    0 and the children are of arbitrary parents: the caller should stop.

    Args:
      key: consumed.
      population: a leading axis of n individuals.
      rewards: float32`[n, w]`, of each individual and shared weight, see `evaluation.score`.
      sizes, settings: static.

    Raises:
      ValueError: see `check`.

    >>> from jaxtickets.search.graphs.genome import Capacity, first_population
    >>> sizes, key = Sizes(inputs=2, outputs=1), jax.random.key(0)
    >>> population = first_population(key, sizes, Capacity(1, 6), 5, share=1.0)
    >>> rewards = jnp.arange(5.0)[:, None]
    >>> step = jax.jit(generation, static_argnums=(3, 4))
    >>> following, info = step(key, population, rewards, sizes, Settings())
    >>> info.order.tolist(), following.source.shape
    ([4, 3, 2, 1, 0], (5, 6))
    """
    n = population.hidden.shape[0]
    check_array("the rewards", rewards, (n, "weights"), float)
    check(n, settings)
    ranking_key, tournament_key, mutation_key = jax.random.split(key, 3)

    alive = jnp.all(jnp.isfinite(rewards), axis=1)
    counted = jnp.where(alive[:, None], rewards, -jnp.inf)
    mean, best = jnp.mean(counted, axis=1), jnp.max(counted, axis=1)
    connections = jax.vmap(complexity)(population)
    simple = jax.random.bernoulli(ranking_key, float(settings.simplicity))
    second = jnp.where(simple, 1 / jnp.maximum(connections, 1), best)
    order = best_first(jnp.stack([mean, second], axis=1), alive)

    elites, parents = _counts(n, settings)
    drawn = jax.random.randint(tournament_key, (n - elites, settings.tournament), 0, parents)
    winners = jax.tree.map(lambda leaf: leaf[order[jnp.min(drawn, axis=1)]], population)
    children = jax.vmap(lambda key, one: mutate(key, one, sizes, settings.mutations))(
        jax.random.split(mutation_key, n - elites), winners
    )
    following = jax.tree.map(
        lambda old, new: jnp.concatenate([old[order[:elites]], new]), population, children
    )
    return following, Info(order, mean, best, connections, jnp.sum(alive).astype(jnp.int32))


def _counts(individuals: int, settings: Settings) -> tuple[int, int]:
    """The number of elites, and of individuals that may be parents."""
    elites, culled = int(settings.elite * individuals), int(settings.cull * individuals)
    return elites, individuals - culled
