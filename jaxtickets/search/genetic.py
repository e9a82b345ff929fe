"""A population of chains that breed: crossover, tournaments, restarts from the best.

Between chunks of annealing, chains may take each other's places: a child has what its two parents
have in common, and of the rest as much as they had. Holland, "Adaptation in natural and artificial
systems", 1975; with local search in between, a memetic algorithm. None of this keeps a Boltzmann
distribution: it is for finding, not for sampling.

All functions are of stacked states, leading axis chains; bits are those of a `Space`.
"""

import jax
import jax.numpy as jnp

from jaxtickets.search.annealing import Kernel, State, best_of
from jaxtickets.search.space import Space, choose, counts
from jaxtickets.types import Array, Key, PyTree


def crossover(key: Key, space: Space, one: Array, other: Array, floor: int = 0) -> Array:
    """bool`[n]`: a child of two bit vectors of equal counts, with that count exactly.

    Ones that both have stay, zeros too; of the bits that one of them has, a random half is kept, so
    that the count is the parents', in each segment where each keeps its own. The key is consumed.

    Args:
      space: says where counts hold.
      one, other: bool`[n]`, parents.
      floor: the least number of ones in each segment, which both parents have.
    """
    chance = jax.random.uniform(key, one.shape)
    score = jnp.where(one & other, 2.0, jnp.where(one | other, chance, -1.0))
    held = counts(space, one)
    if space.scope == "layer":
        keep = {name: held[i] for i, name in enumerate(space.names)}
        return choose(space, score, keep)
    return choose(space, score, jnp.sum(held), floor)


def tournament(key: Key, energy: Array, size: int, winners: int) -> Array:
    """int32`[winners]`: each the chain of the lowest `energy[chains]` of `size` drawn at random.

    Drawn with replacement; what isn't finite loses. The key is consumed.
    """
    drawn = jax.random.randint(key, (winners, size), 0, energy.shape[0])
    least = jnp.argmin(jnp.where(jnp.isfinite(energy), energy, jnp.inf)[drawn], axis=1)
    return jnp.take_along_axis(drawn, least[:, None], axis=1)[:, 0]


def breed(
    key: Key, kernel: Kernel, space: Space, states: State, children: int, size: int, floor: int = 0
) -> State:
    """The worst chains give way to children of parents that won tournaments.

    Args:
      key: consumed.
      kernel: begins the children's walks.
      space: of the bits.
      states: stacked.
      children: how many; static, fewer than there are chains.
      size: of the tournaments.
      floor: see `crossover`.
    """
    first_key, second_key, cross_key, place_key = jax.random.split(key, 4)
    points = jax.vmap(kernel.point)(states)
    mothers, fathers = (
        points[tournament(k, states.energy, size, children)] for k in (first_key, second_key)
    )
    keys = jax.random.split(cross_key, children)
    born = jax.vmap(lambda k, a, b: crossover(k, space, a, b, floor))(keys, mothers, fathers)
    return _replace_worst(place_key, kernel, states, born, children)


def restart(key: Key, kernel: Kernel, states: State, chains: int) -> State:
    """The worst `chains` begin again at the best point that any has met; the key is consumed."""
    best = jnp.argmin(states.best_energy)
    points = jax.tree.map(lambda leaf: jnp.stack([leaf[best]] * chains), states.best)
    return _replace_worst(key, kernel, states, points, chains)


def _replace_worst(key: Key, kernel: Kernel, states: State, points: PyTree, chains: int) -> State:
    """Chains of the highest energy go on from `points[chains]`; what isn't finite is highest."""
    energy = jnp.where(jnp.isfinite(states.energy), states.energy, jnp.inf)
    worst = jnp.argsort(energy)[-chains:]
    old = jax.tree.map(lambda leaf: leaf[worst], states)
    keys = jax.random.split(key, chains)
    # one after another: a net each would be evaluated at once otherwise
    new = jax.lax.map(lambda pair: kernel.init(*pair), (keys, points))
    new = new._replace(start=old.start, scale=old.scale, log_size=old.log_size)
    new = best_of(new, old)
    return jax.tree.map(lambda leaf, rows: leaf.at[worst].set(rows), states, new)
