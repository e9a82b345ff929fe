"""Sparse optimisers: optax transformations around an optax optimiser, whose state holds the mask.

    optimizer = static.masked(optax.adam(1e-3), mask)      # or another method's, such as granet
    state = optimizer.init(params)
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)          # obey state.mask, bit for bit

A sparse optimiser takes the dense gradient of the loss at `params`. In a training step, it passes
only the gradient of the kept weights to the inner optimiser, and pruned weights do not change. In a
*move*, it changes the mask instead of taking a training step, as in RigL (Evci et al., 2020,
algorithm 1). Dropped weights are set to zero, grown weights start at zero, and the inner
optimiser's moments of both are reset.

By default, a method counts its calls to decide when it moves. A loop that has a better gradient for
a move, such as one of many batches, passes `move=True` with it and `move=False` in all training
steps. The flag is static, so that only one of the two branches is computed, also under `vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtickets import masks, optimizer_states
from jaxtickets.types import Array, Mask, Params, PyTree


class SparseState(NamedTuple):
    """The state of a sparse optimiser.

    Attributes:
      mask: bool, like the parameters; the current mask.
      inner: the state of the inner optimiser.
      method: what a method carries from move to move; `()` if nothing.
      calls: int32 scalar, the number of updates so far, training steps and moves; 0 for a method
        that does not count.
    """

    mask: Mask
    inner: optax.OptState
    method: PyTree
    calls: Array


def check_update(gradient: Params, params: Params | None) -> Params:
    """The parameters of an update.

    Raises:
      ValueError: they are missing, or `gradient` has other leaves or shapes.
    """
    if params is None:
        raise ValueError("a sparse optimiser's update needs the parameters")
    masks.check_like(gradient, params, "the gradient", "the parameters")
    return params


class Move(Protocol):
    """`move(gradient, params, mask, method) -> (mask, method)`: the next mask.

    `gradient` and `params` are trees of float; `params` are zero where `mask` is False.
    """

    def __call__(
        self, gradient: Params, params: Params, mask: Mask, method: PyTree
    ) -> tuple[Mask, PyTree]:
        """The new mask, with exact counts, and the method's new state."""
        ...


Sparsify = Callable[
    [optax.GradientTransformation, Mask, Params | None], optax.GradientTransformationExtraArgs
]
"""`sparsify(inner, mask, fill) -> sparse optimiser`; only `masked` takes a `fill`."""


def sparse(
    inner: optax.GradientTransformation,
    mask: Mask,
    moves: Move,
    due: Callable[[Array], Array],
    method: PyTree = (),
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser of a method, from its moves.

    Args:
      inner: the optimiser of the training steps.
      mask: bool, like the parameters: the initial mask.
      moves: see `Move`.
      due: `due(calls) -> bool`: whether the update after `calls` updates is a move.
      method: the method's initial state.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SparseState:
        return SparseState(mask, inner.init(masks.apply(mask, params)), method, jnp.int32(0))

    def moved(gradient: Params, state: SparseState, params: Params) -> tuple[Params, SparseState]:
        params = masks.apply(state.mask, params)
        now, carried = moves(gradient, params, state.mask, state.method)
        old = jax.tree.map(jnp.logical_and, state.mask, now)
        left = masks.apply(old, params)
        inner_state = optimizer_states.reset_moments(inner, state.inner, left, old)
        still = jax.tree.map(jnp.zeros_like, params)
        return _obeying(old, still, params), state._replace(
            mask=now, inner=inner_state, method=carried
        )

    def update(
        gradient: Params,
        state: SparseState,
        params: Params | None = None,
        *,
        move: bool | None = None,
        **extra: Any,
    ) -> tuple[Params, SparseState]:
        params = check_update(gradient, params)

        def step(
            gradient: Params, state: SparseState, params: Params
        ) -> tuple[Params, SparseState]:
            kept = masks.apply(state.mask, gradient)
            updates, inner_state = inner.update(kept, state.inner, params, **extra)
            return _obeying(state.mask, updates, params), state._replace(inner=inner_state)

        if move is None:
            updates, new = lax.cond(due(state.calls), moved, step, gradient, state, params)
        else:
            updates, new = (moved if move else step)(gradient, state, params)
        return updates, new._replace(calls=state.calls + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _obeying(mask: Mask, updates: Params, params: Params) -> Params:
    """Updates after which pruned parameters are exactly zero: `p + (-p)` is 0."""
    return jax.tree.map(lambda keep, u, p: jnp.where(keep, u, -p), mask, updates, params)
