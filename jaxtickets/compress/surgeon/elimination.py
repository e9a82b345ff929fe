"""The optimal brain surgeon's elimination: one weight after another, in many rows at once.

A row is a quadratic problem: the loss of the weights `w + δ[d]` is `½ δᵀ H δ`. Removing weight q
and moving the others to the minimum that remains costs `w_q² / (2 [H⁻¹]_qq)`, and

    w ← w − H⁻¹[:, q] w_q / [H⁻¹]_qq,
    H⁻¹ ← H⁻¹ − H⁻¹[:, q] H⁻¹[q, :] / [H⁻¹]_qq

(Hassibi and Stork, "Second order derivatives for network pruning", 1992, equations 5; Frantar and
Alistarh, "Optimal brain compression", 2022, algorithm 1). The downdates are the steps of a Cholesky
decomposition of `H⁻¹` whose pivots are chosen on the way. So, as in a blocked Cholesky
decomposition, the columns of `BLOCK` steps are collected and subtracted as one matrix product, and
once half of the weights are gone, the others move to a smaller matrix. For d weights this takes
about `8/7 d³` operations, nearly all of them in matrix products; downdating the whole matrix at
each step takes `2 d³` at the speed of the memory.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array

BLOCK = 64
"""The number of steps whose downdates are one matrix product."""

SMALL = 128
"""The size of a matrix that is not made smaller any more: each size is compiled."""

MEMORY = {"cpu": 2**25}
"""Backend -> the bytes of the inverses of the rows that are processed at once.

On a CPU, about the size of the cache."""

MEMORY_ELSEWHERE = 2**31


class Trace(NamedTuple):
    """The order in which the weights of each row are removed.

    Attributes:
      order: int`[rows, steps]`, the index of the weight that each step removes.
      losses: float64`[rows, steps]`, what each step adds to the loss of the row; 0 for a weight
        that was removed before.
    """

    order: np.ndarray
    losses: np.ndarray


def eliminate(
    inverses: Array,
    problem: Array,
    weights: Array,
    removed: Array,
    group: int | None = None,
    keep: int = 0,
) -> Trace:
    """The trace of each row's weights, removed one after another; float64 on every backend.

    Args:
      inverses: float`[problems, d, d]`, symmetric and positive definite: the inverse Hessians.
      problem: int`[rows]`, the index of each row's inverse Hessian.
      weights: float`[rows, d]`.
      removed: bool`[rows, d]`: weights that were removed before; they go first, at no loss. Their
        values must be 0.
      group: the number of consecutive weights of a group, for N:M patterns: the last group may be
        smaller. None for one group of all.
      keep: the number of weights that are not removed of each group; of a smaller last group of R
        weights, `ceil(keep R / group)`.

    Raises:
      ValueError: in one line: shapes do not match, or `keep` is not from 0 to the group's size.

    >>> weights, removed = np.array([[3.0, 1.0, 2.0]]), np.zeros((1, 3), bool)
    >>> order, losses = eliminate(np.eye(3)[None], np.array([0]), weights, removed)
    >>> order.tolist(), losses.tolist()  # w² / 2
    ([[1, 2, 0]], [[0.5, 2.0, 4.5]])
    """
    rows, d = np.shape(weights)
    check_array("the inverse Hessians", inverses, ("problems", d, d), float)
    check_array("the rows' problems", problem, (rows,), int)
    check_array("the removed weights", removed, (rows, d), bool)
    size = d if group is None else group
    room = rooms(d, size, keep)
    steps = int(room.sum())
    memory = MEMORY.get(jax.default_backend(), MEMORY_ELSEWHERE)
    at_once = max(1, min(rows, memory // max(1, 8 * d * d)))
    traces = []
    with jax.enable_x64(True):
        shared = jnp.asarray(inverses, jnp.float64)
        for start in range(0, rows, at_once):
            # the last rows are repeated, so that all parts have one shape
            part = np.minimum(np.arange(start, start + at_once), rows - 1)
            order, losses = _eliminate(
                shared,
                jnp.asarray(problem)[part],
                jnp.asarray(weights, jnp.float64)[part],
                jnp.asarray(removed)[part],
                jnp.asarray(room),
                size=size,
                steps=steps,
            )
            traces.append((np.asarray(order), np.asarray(losses)))
    order, losses = (np.concatenate(parts)[:rows] for parts in zip(*traces, strict=True))
    return Trace(order, losses)


def rooms(d: int, size: int, keep: int) -> np.ndarray:
    """int`[groups]`: how many of each group's weights can be removed, see `eliminate`.

    Raises:
      ValueError: `keep` is not from 0 to the group's size.

    >>> rooms(d=10, size=4, keep=2).tolist()  # groups of 4, 4 and 2
    [2, 2, 1]
    """
    if size < 1 or not 0 <= keep <= size:
        raise ValueError(f"{keep} kept of every {size} weights: must be from 0 to {size}")
    sizes = np.minimum(size, d - np.arange(0, d, size))
    return sizes - -(-keep * sizes // size)


class _Rows(NamedTuple):
    """The rows' weights that are still in the matrix; `a` of them in each row.

    Attributes:
      index: int`[rows, a]`, the weights' own indices.
      weights: float`[rows, a]`.
      alive: bool`[rows, a]`: whether a weight is not removed yet.
      first: bool`[rows, a]`: whether it was removed before the elimination.
      room: int`[rows, groups]`: how many more can be removed of each group.
    """

    index: Array
    weights: Array
    alive: Array
    first: Array
    room: Array


@partial(jax.jit, static_argnames=("size", "steps"))
def _eliminate(
    inverses: Array,
    problem: Array,
    weights: Array,
    removed: Array,
    room: Array,
    *,
    size: int,
    steps: int,
) -> tuple[Array, Array]:
    """The order and the losses of `steps` steps; the arguments are those of `eliminate`."""
    rows, d = weights.shape
    inverse = inverses[problem]
    state = _Rows(
        jnp.broadcast_to(jnp.arange(d)[None], (rows, d)),
        weights,
        jnp.ones((rows, d), bool),
        removed,
        jnp.broadcast_to(room[None], (rows, room.size)),
    )
    orders, losses = [], []
    while steps:
        active = state.index.shape[1]
        half = max(BLOCK, active // 2 // BLOCK * BLOCK)
        now = steps if active <= SMALL else min(steps, half)
        inverse, state, order, loss = _phase(inverse, state, size, now)
        orders.append(order)
        losses.append(loss)
        steps -= now
        if steps:
            inverse, state = jax.vmap(partial(_compact, left=active - now))(inverse, state)
    if not orders:
        return jnp.zeros((rows, 0), int), jnp.zeros((rows, 0))
    return jnp.concatenate(orders, 1), jnp.concatenate(losses, 1)


def _phase(
    inverse: Array, state: _Rows, size: int, steps: int
) -> tuple[Array, _Rows, Array, Array]:
    """`steps` steps, in blocks: the new inverses and rows, and the order and losses."""

    def block(carry: tuple[Array, _Rows], length: int) -> tuple[tuple[Array, _Rows], Array]:
        inverse, state = carry
        rows, active = state.weights.shape
        diagonal = jnp.diagonal(inverse, axis1=1, axis2=2)
        columns = jnp.zeros((rows, length, active))
        one = jax.vmap(partial(_step, size=size), in_axes=(0, 0, 0, 0, None))

        def body(carry: tuple, step: Array) -> tuple[tuple, tuple[Array, Array]]:
            state, diagonal, columns = carry
            return one(inverse, state, diagonal, columns, step)

        (state, _, columns), made = lax.scan(body, (state, diagonal, columns), jnp.arange(length))
        return (inverse - jnp.einsum("rba,rbc->rac", columns, columns), state), made

    carry, orders, losses = (inverse, state), [], []
    whole, rest = divmod(steps, BLOCK)
    if whole:
        carry, (order, loss) = lax.scan(
            lambda carry, _: block(carry, BLOCK), carry, None, length=whole
        )
        orders.append(order.reshape(-1, order.shape[-1]))
        losses.append(loss.reshape(-1, loss.shape[-1]))
    if rest:
        carry, (order, loss) = block(carry, rest)
        orders.append(order)
        losses.append(loss)
    return *carry, jnp.concatenate(orders).T, jnp.concatenate(losses).T


def _step(
    inverse: Array, state: _Rows, diagonal: Array, columns: Array, step: Array, *, size: int
) -> tuple[tuple[_Rows, Array, Array], tuple[Array, Array]]:
    """Removes one weight of one row; the true inverse is `inverse - columnsᵀ columns`."""
    w, alive = state.weights, state.alive
    can = alive & (state.room[state.index // size] > 0)
    cost = jnp.where(state.first, -1.0, w**2 / diagonal)
    q = jnp.argmin(jnp.where(can, cost, jnp.inf))
    column = jnp.where(alive, inverse[q] - columns[:, q] @ columns, 0)
    pivot = column[q]
    scaled = column / jnp.sqrt(pivot)
    here = jnp.arange(w.size) == q
    moved = jnp.where(alive & ~here, w - column * (w[q] / pivot), 0)
    left = alive & ~here
    new = state._replace(
        weights=moved,
        alive=left,
        room=state.room.at[state.index[q] // size].add(-1),
    )
    diagonal = jnp.where(left, diagonal - scaled**2, 1)
    columns = lax.dynamic_update_index_in_dim(columns, scaled, step, 0)
    return (new, diagonal, columns), (state.index[q], w[q] ** 2 / (2 * pivot))


def _compact(inverse: Array, state: _Rows, left: int) -> tuple[Array, _Rows]:
    """One row with the weights that are not removed alone."""
    (there,) = jnp.nonzero(state.alive, size=left)
    return inverse[there][:, there], state._replace(
        index=state.index[there],
        weights=state.weights[there],
        alive=state.alive[there],
        first=state.first[there],
    )
