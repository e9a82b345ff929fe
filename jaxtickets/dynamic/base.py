"""Sparse optimisers: optax transformations around an optax optimiser, whose state holds the mask.

    optimizer = static.masked(optax.adam(1e-3), mask)      # or another method's, such as granet
    state = optimizer.init(params)
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)          # obey state.mask, bit for bit

They take the dense gradient, of the loss at `params`. In a training step the inner optimiser sees
that of the kept weights alone, and what is pruned stays where it is. In a *move* the mask changes
in place of a training step, as in RigL (Evci et al., 2020, algorithm 1): weights that are dropped
go to zero, weights that are grown begin at zero, and what the inner optimiser keeps of both, its
moments, begins anew.

A method says when it moves by counting calls. A loop that has better gradients for it, such as one
of many batches, passes `move=True` with them and `move=False` with all others: static, so that
nothing else is computed, also under `vmap`.
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
      mask: bool like the parameters: what is kept now.
      inner: the state of the optimiser that is wrapped.
      method: what a method carries from move to move; `()` if nothing.
      calls: int32, how many updates there were, training steps and moves; 0 if nobody counts.
    """

    mask: Mask
    inner: optax.OptState
    method: PyTree
    calls: Array


class Move(Protocol):
    """`move(gradient, params, mask, method) -> (mask, method)`: what is kept from now on.

    `gradient` and `params` are trees of float, the latter zero where `mask` is False.
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
    """The sparse optimiser that a method makes of its moves.

    Args:
      inner: the optimiser of training steps.
      mask: bool like the parameters: what is kept at first.
      moves: see `Move`.
      due: `due(calls) -> bool`: whether the update after so many calls is a move.
      method: what `moves` is given at first.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SparseState:
        return SparseState(mask, inner.init(masks.apply(mask, params)), method, jnp.int32(0))

    def moved(gradient: Params, state: SparseState, params: Params) -> tuple[Params, SparseState]:
        params = masks.apply(state.mask, params)
        now, carried = moves(gradient, params, state.mask, state.method)
        old = jax.tree.map(jnp.logical_and, state.mask, now)
        left = masks.apply(old, params)
        inner_state = optimizer_states.anew(inner, state.inner, left, old)
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
        if params is None:
            raise ValueError("a sparse optimiser's update needs the parameters")

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
    """Updates after which what is pruned is exactly zero: `p + (-p)` is 0."""
    return jax.tree.map(lambda keep, u, p: jnp.where(keep, u, -p), mask, updates, params)
