"""Ranks of a population by several objectives: NSGA-II's sort by fronts and crowding.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002, sections III-A and
III-B.
"""

import jax
import jax.numpy as jnp

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array


def fronts(objectives: Array) -> Array:
    """int32`[n]`: the number of the front in which each individual lies, the best from 0.

    One individual dominates another if it is no worse in any objective and better in one. Front 0
    is dominated by none, front k by none but those of earlier fronts.

    Args:
      objectives: float`[n, k]`, all to be raised; not NaN.

    >>> fronts(jnp.array([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])).tolist()
    [0, 0, 1]
    """
    check_array("the objectives", objectives, ("individuals", "objectives"), float)
    one, other = objectives[:, None], objectives[None]
    dominates = jnp.all(one >= other, axis=2) & jnp.any(one > other, axis=2)

    def peel(state: tuple[Array, Array]) -> tuple[Array, Array]:
        front, number = state
        left = front < 0
        beaten = jnp.any(dominates & left[:, None], axis=0)
        return jnp.where(left & ~beaten, number, front), number + 1

    start = jnp.full(objectives.shape[0], -1, jnp.int32), jnp.int32(0)
    front, _ = jax.lax.while_loop(lambda state: jnp.any(state[0] < 0), peel, start)
    return front


def crowding(objectives: Array, front: Array) -> Array:
    """float`[n]`: the crowding distance of each individual within its front.

        sum over objectives of (next above - next below) / (largest - smallest of the front)

    It is infinite for the ends of a front in any objective.

    Args:
      objectives: float`[n, k]`.
      front: int32`[n]`, from 0 to n - 1.

    >>> on_a_line = jnp.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    >>> jax.jit(crowding)(on_a_line, front=np.zeros(3, np.int32)).tolist()
    [inf, 2.0, inf]
    """
    n, front = objectives.shape[0], jnp.asarray(front)

    def of_one(values: Array) -> Array:
        order = jnp.lexsort((values, front))
        value, number = values[order], front[order]
        same = number[1:] == number[:-1]
        edge = jnp.zeros(1, bool)
        ends = ~(jnp.concatenate([edge, same]) & jnp.concatenate([same, edge]))
        gap = jnp.roll(value, -1) - jnp.roll(value, 1)
        most = jax.ops.segment_max(value, number, n)[number]
        least = jax.ops.segment_min(value, number, n)[number]
        spread = jnp.where(most > least, most - least, 1)
        return jnp.zeros(n).at[order].set(jnp.where(ends, jnp.inf, gap / spread))

    return jnp.sum(jax.vmap(of_one, 1)(objectives), axis=0)


def best_first(objectives: Array, alive: Array) -> Array:
    """int32`[n]`: the individuals from best to worst: by front, then the less crowded first.

    Ties keep the order of the population.

    Args:
      objectives: float`[n, k]`, all to be raised.
      alive: bool`[n]`; the others come last, and their objectives don't count.

    >>> objectives, alive = jnp.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), [True, True, False]
    >>> jax.jit(best_first)(objectives, jnp.array(alive)).tolist()
    [1, 0, 2]
    """
    n = objectives.shape[0]
    least = jnp.min(jnp.where(alive[:, None], objectives, jnp.inf), axis=0, keepdims=True)
    valid = jnp.where(alive[:, None], objectives, jnp.where(jnp.isfinite(least), least, 0))
    front = fronts(valid)  # in which the dead, the least in all, dominate nobody
    front = jnp.where(alive, front, n - 1)
    return jnp.lexsort((-crowding(valid, front), front))
