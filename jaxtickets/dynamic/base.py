"""Sparse optimisers: optax transformations around an optax optimiser, whose state holds the mask.

    optimizer = rigl.rigl(optax.adam(1e-3), mask, prunable, plan, every=100)    # or another method
    state = optimizer.init(params)
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)          # obey the mask, bit for bit

A sparse optimiser takes the dense gradient of the loss at `params`. In a training step, it passes
only the gradient of the kept weights to the inner optimiser, and pruned weights do not change. In a
*move*, it changes the mask instead of taking a training step, as in RigL (Evci et al., 2020,
algorithm 1). Dropped weights are set to zero, grown weights start at zero, and the inner
optimiser's moments of both are reset. Some methods change the mask or the gradient in the training
steps themselves.

By default, a method counts its calls to decide when it moves. A loop that has a better gradient for
a move, such as one of many batches, passes `move=True` with it and `move=False` in all training
steps. The flag is static, so that only one of the two branches is computed, also under `vmap`.

`mask_of(state)` finds the mask in any state that contains that of a sparse optimiser, such as that
of `optax.chain` or `optax.MultiSteps`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtickets import masks, optimizer_states
from jaxtickets.types import Array, Key, Mask, Params, PyTree


class SparseState(NamedTuple):
    """The state of a sparse optimiser.

    Attributes:
      mask: bool, like the parameters; the current mask.
      inner: the state of the inner optimiser.
      method: what a method carries from call to call; `()` if nothing.
      calls: int32 scalar, the number of updates so far, training steps and moves; 0 for a static
        mask, so that a rewound training has the state of one that was never interrupted.
      key: the key of all random choices; None for a method that makes none.
    """

    mask: Mask
    inner: optax.OptState
    method: PyTree
    calls: Array
    key: Key | None = None


class View(NamedTuple):
    """What a method sees at an update.

    Attributes:
      gradient: the dense gradient at `params`.
      params: the parameters, zero where `mask` is False, or the fill of a static mask.
      mask: bool, like the parameters; the current mask.
      inner: the state of the inner optimiser.
      method: what the method carries.
      calls: int32 scalar, the number of updates before this one.
      key: a key for this update alone; None if the method has none.
    """

    gradient: Params
    params: Params
    mask: Mask
    inner: optax.OptState
    method: PyTree
    calls: Array
    key: Key | None

    def random(self) -> Key:
        """The key.

        Raises:
          ValueError: there is none.
        """
        if self.key is None:
            raise ValueError("this method makes random choices and needs a key: give key=")
        return self.key


class Move(Protocol):
    """`move(view) -> (mask, method)`: the next mask, and what the method carries on."""

    def __call__(self, view: View) -> tuple[Mask, PyTree]:
        """The new mask, with exact counts, and the method's new state."""
        ...


class Before(Protocol):
    """`before(view) -> gradient`: the gradient that the inner optimiser sees, still unmasked."""

    def __call__(self, view: View) -> Params:
        """The gradient, like the parameters."""
        ...


class After(Protocol):
    """`after(view, params) -> (params, mask, method)`: changes the result of a training step."""

    def __call__(self, view: View, params: Params) -> tuple[Params, Mask, PyTree]:
        """The new parameters, the next mask, and what the method carries on.

        Args:
          view: before the step.
          params: after the step.
        """
        ...


Sparsify = Callable[
    [optax.GradientTransformation, Mask, Params | None, PyTree],
    optax.GradientTransformationExtraArgs,
]
"""`sparsify(inner, mask, fill, hyper) -> sparse optimiser`. `hyper` holds what differs between the
runs of a batch. Only a static mask takes a `fill`."""


def _check_update(gradient: Params, params: Params | None) -> Params:
    """The parameters of an update.

    Raises:
      ValueError: they are missing, or `gradient` has other leaves or shapes.
    """
    if params is None:
        raise ValueError("a sparse optimiser's update needs the parameters")
    masks.check_like(gradient, params, "the gradient", "the parameters")
    return params


def sparse(
    inner: optax.GradientTransformation,
    mask: Mask,
    *,
    move: Move | None = None,
    due: Callable[[Array], Array] | None = None,
    before: Before | None = None,
    after: After | None = None,
    method: PyTree = (),
    key: Key | None = None,
    fill: Params | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser of a method, from its parts.

    Args:
      inner: the optimiser of the training steps.
      mask: bool, like the parameters: the initial mask.
      move: see `Move`; None: the mask changes in no move.
      due: `due(calls) -> bool`: whether the update after `calls` updates is a move; None: never,
        unless the loop asks for one.
      before, after: see `Before` and `After`; None changes nothing.
      method: the method's initial state.
      key: for random choices.
      fill: the values where the mask is False, None for zero; only for a mask that never changes.

    >>> def move(view):  # drops weights below 2
    ...     return jax.tree.map(lambda w: jnp.abs(w) >= 2, view.params), ()
    >>> params = {"w": jnp.array([1.0, -2.0])}
    >>> optimizer = sparse(optax.sgd(1.0), {"w": np.ones(2, bool)}, move=move)
    >>> updates, state = optimizer.update(params, optimizer.init(params), params, move=True)
    >>> state.mask["w"].tolist(), optax.apply_updates(params, updates)["w"].tolist()
    ([False, True], [0.0, -2.0])
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SparseState:
        held = masks.apply(mask, params, fill)
        return SparseState(mask, inner.init(held), method, jnp.int32(0), key)

    def view_of(gradient: Params, state: SparseState, params: Params) -> View:
        now = None if state.key is None else jax.random.fold_in(state.key, state.calls)
        return View(gradient, params, state.mask, state.inner, state.method, state.calls, now)

    def moved(gradient: Params, state: SparseState, params: Params) -> tuple[Params, SparseState]:
        assert move is not None
        view = view_of(gradient, state, masks.apply(state.mask, params))
        now, carried = move(view)
        old = jax.tree.map(jnp.logical_and, state.mask, now)
        zero = jax.tree.map(jnp.zeros_like, params)
        return _obeying(old, zero, params), state._replace(
            mask=now, inner=_fresh(inner, state.inner, params, old), method=carried
        )

    def update(
        gradient: Params,
        state: SparseState,
        params: Params | None = None,
        *,
        move: bool | None = None,
        **extra: Any,
    ) -> tuple[Params, SparseState]:
        params = _check_update(gradient, params)

        def step(
            gradient: Params, state: SparseState, params: Params
        ) -> tuple[Params, SparseState]:
            view = view_of(gradient, state, masks.apply(state.mask, params, fill))
            seen = before(view) if before else gradient
            kept = masks.apply(state.mask, seen)
            updates, inner_state = inner.update(kept, state.inner, params, **extra)
            if fill is not None:  # parameters hold it already
                return masks.apply(state.mask, updates), state._replace(inner=inner_state)
            updates = _obeying(state.mask, updates, params)
            if after is None:
                return updates, state._replace(inner=inner_state)
            reached = optax.apply_updates(params, updates)
            final, now, carried = after(view, reached)
            if now is not state.mask:
                old = jax.tree.map(jnp.logical_and, state.mask, now)
                inner_state = _fresh(inner, inner_state, final, old)
            if final is not reached:
                updates = jax.tree.map(jnp.subtract, final, params)
            return _obeying(now, updates, params), state._replace(
                mask=now, inner=inner_state, method=carried
            )

        if move and not moves:
            raise ValueError("this method's mask changes in no move")
        if move is None and moves and due is not None:
            updates, new = lax.cond(due(state.calls), moved, step, gradient, state, params)
        else:
            updates, new = (moved if move else step)(gradient, state, params)
        return updates, new._replace(calls=state.calls + 1) if counts else new

    moves = move is not None
    counts = moves or before is not None or after is not None
    return optax.GradientTransformationExtraArgs(init, update)


def mask_of(state: PyTree) -> Mask:
    """The mask in an optimiser's state that contains that of one sparse optimiser.

    Raises:
      ValueError: it contains that of none, or of several.

    >>> inner = sparse(optax.sgd(0.1), {"w": np.array([True, False])})
    >>> mask_of(optax.chain(optax.clip(1.0), inner).init({"w": jnp.ones(2)}))["w"].tolist()
    [True, False]
    """
    found = [
        node
        for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, SparseState))
        if isinstance(node, SparseState)
    ]
    if len(found) != 1:
        raise ValueError(f"the state contains {len(found)} sparse optimisers, not one")
    return found[0].mask


def every_so_often(every: int) -> Callable[[Array], Array]:
    """`due` for a move after each `every` training steps.

    >>> [bool(every_so_often(2)(calls)) for calls in range(6)]
    [False, False, True, False, False, True]
    """
    return lambda calls: calls % (every + 1) == every


def _fresh(
    inner: optax.GradientTransformation, state: optax.OptState, params: Params, keep: Mask
) -> optax.OptState:
    return optimizer_states.reset_moments(inner, state, masks.apply(keep, params), keep)


def _obeying(mask: Mask, updates: Params, params: Params) -> Params:
    """Updates after which pruned parameters are exactly zero: `p + (-p)` is 0."""
    return jax.tree.map(lambda keep, u, p: jnp.where(keep, u, -p), mask, updates, params)
