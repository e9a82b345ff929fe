"""Genetic search over a population of chains: crossover, tournaments, restarts from the best.

Between chunks of annealing, new points replace those of the worst chains. A child keeps the ones
that its two parents share and a random part of those that only one of them has. Holland,
"Adaptation in natural and artificial systems", 1975; combined with local search, a memetic
algorithm. None of this preserves a Boltzmann distribution: it optimises and does not sample.

All functions take stacked states, with a leading axis of chains; bits are those of a `Space`.
"""

import jax
import jax.numpy as jnp

from jaxtickets.search.annealing import Kernel, State, best_of
from jaxtickets.search.space import Space, choose, counts
from jaxtickets.types import Array, Key, PyTree


def crossover(key: Key, space: Space, one: Array, other: Array, floor: int = 0) -> Array:
    """bool`[n]`: a child of two bit vectors with the same count as both.

    Bits on which the parents agree stay. Of the ones that only one parent has, a random part is
    kept, as many as restore the parents' count; in the scope `layer`, each segment's count. The key
    is consumed.

    Args:
      space: its scope says which counts are kept.
      one, other: bool`[n]`, the parents, of equal counts.
      floor: the fewest ones in each segment, which both parents have.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> one, other = np.array([True, True, False, False]), np.array([True, False, True, False])
    >>> child = crossover(jax.random.key(0), space, one, other)
    >>> int(child.sum()), bool(child[0]), bool(child[3])
    (2, True, False)
    """
    chance = jax.random.uniform(key, one.shape)
    score = jnp.where(one & other, 2.0, jnp.where(one | other, chance, -1.0))
    held = counts(space, one)
    if space.scope == "layer":
        keep = {name: held[i] for i, name in enumerate(space.names)}
        return choose(space, score, keep)
    return choose(space, score, jnp.sum(held), floor)


def tournament(key: Key, energy: Array, size: int, winners: int) -> Array:
    """int32`[winners]`: each winner has the lowest energy of `size` chains drawn at random.

    Chains are drawn with replacement from `energy[chains]`; a non-finite energy loses. The key is
    consumed.

    >>> tournament(jax.random.key(0), jnp.array([3.0, 1.0, 2.0]), size=100, winners=2).tolist()
    [1, 1]
    """
    drawn = jax.random.randint(key, (winners, size), 0, energy.shape[0])
    least = jnp.argmin(jnp.where(jnp.isfinite(energy), energy, jnp.inf)[drawn], axis=1)
    return jnp.take_along_axis(drawn, least[:, None], axis=1)[:, 0]


def breed(
    key: Key, kernel: Kernel, space: Space, states: State, children: int, size: int, floor: int = 0
) -> State:
    """Replaces the worst chains by children of parents that won tournaments.

    Args:
      key: consumed.
      kernel: its `init` starts the children's walks.
      space: the space of the bits.
      states: stacked.
      children: the number of children; static, fewer than the chains.
      size: the number of chains in a tournament.
      floor: see `crossover`.

    >>> from jaxtickets.search import annealing, energies, space, swaps
    >>> scores, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))  # the share of the scores that the mask loses
    >>> kernel = annealing.build(swaps.moves(bits, most=1), bits.mask, lost, annealing.Rules())
    >>> states = jax.vmap(kernel.init)(jax.random.split(key), np.eye(2, dtype=bool))
    >>> after = breed(key, kernel, bits, states, children=1, size=100)  # the best has a child
    >>> states.energy.tolist(), after.energy.tolist()
    ([0.75, 0.25], [0.25, 0.25])
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
    """Restarts the worst `chains` at the best point of any chain; the key is consumed.

    >>> from jaxtickets.search import annealing, energies, space, swaps
    >>> scores, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))  # the share of the scores that the mask loses
    >>> kernel = annealing.build(swaps.moves(bits, most=1), bits.mask, lost, annealing.Rules())
    >>> states = jax.vmap(kernel.init)(jax.random.split(key), np.eye(2, dtype=bool))
    >>> kernel.point(restart(key, kernel, states, chains=1)).tolist()
    [[False, True], [False, True]]
    """
    best = jnp.argmin(states.best_energy)
    points = jax.tree.map(lambda leaf: jnp.stack([leaf[best]] * chains), states.best)
    return _replace_worst(key, kernel, states, points, chains)


def _replace_worst(key: Key, kernel: Kernel, states: State, points: PyTree, chains: int) -> State:
    """Restarts the chains of the highest energies, non-finite ones first, at `points[chains]`."""
    energy = jnp.where(jnp.isfinite(states.energy), states.energy, jnp.inf)
    worst = jnp.argsort(energy)[-chains:]
    old = jax.tree.map(lambda leaf: leaf[worst], states)
    keys = jax.random.split(key, chains)
    # one after another: `vmap` would evaluate all their nets at once
    new = jax.lax.map(lambda pair: kernel.init(*pair), (keys, points))
    new = new._replace(start=old.start, scale=old.scale, log_size=old.log_size)
    new = best_of(new, old)
    return jax.tree.map(lambda leaf, rows: jnp.asarray(leaf).at[worst].set(rows), states, new)
