"""Static masking: the simplest sparse optimiser; its mask never changes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.dynamic.base import SparseState, check_update
from jaxtickets.types import Mask, Params


def masked(
    inner: optax.GradientTransformation, mask: Mask, fill: Params | None = None
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser with a fixed mask; see `dynamic.base` for its use.

    Args:
      inner: any optax optimiser.
      mask: bool, like the parameters.
      fill: the values where the mask is False; parameters that already hold them do not change.
        None sets them to zero, whatever their initial values.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SparseState:
        held = masks.apply(mask, params, fill)
        return SparseState(mask, inner.init(held), (), jnp.int32(0))

    def update(
        gradient: Params,
        state: SparseState,
        params: Params | None = None,
        *,
        move: bool | None = None,
        **extra: Any,
    ) -> tuple[Params, SparseState]:
        params = check_update(gradient, params)
        if move:
            raise ValueError("a static mask doesn't move")
        kept = masks.apply(state.mask, gradient)
        updates, inner_state = inner.update(kept, state.inner, params, **extra)

        def leaf(keep: Any, u: Any, p: Any) -> Any:
            return jnp.where(keep, u, -p if fill is None else jnp.zeros_like(p))

        updates = jax.tree.map(leaf, state.mask, updates, params)
        return updates, state._replace(inner=inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
