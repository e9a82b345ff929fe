"""What a mask has been so far: which weights were ever kept, and how many were grown.

The share of all weights that were ever kept is the in-time exploration rate of Liu et al., "Do we
actually need dense over-parameterization? In-time over-parameterization in sparse training", 2021.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.dynamic.base import mask_of
from jaxtickets.types import Array, Mask, Params, Prunable


class History(NamedTuple):
    """The state of a sparse optimiser whose masks are watched.

    Attributes:
      inner: the state of the sparse optimiser.
      ever: bool, like the parameters: whether a weight was ever kept.
      grown: float scalar, how many weights were grown so far, those that return included.
    """

    inner: optax.OptState
    ever: Mask
    grown: Array

    @property
    def mask(self) -> Mask:
        """The current mask."""
        return mask_of(self.inner)


def with_history(
    optimizer: optax.GradientTransformationExtraArgs, prunable: Prunable
) -> optax.GradientTransformationExtraArgs:
    """The same sparse optimiser, with a `History` as its state.

    Args:
      optimizer: a sparse optimiser, or one that contains one.
      prunable: the leaves whose grown weights are counted.

    >>> from jaxtickets.dynamic import drop_and_grow
    >>> params, gradient = {"w": jnp.array([1.0, 2.0, 3.0, 0.0])}, {"w": jnp.arange(4.0)}
    >>> mask, one = {"w": params["w"] != 0}, np.array([1])
    >>> moves = drop_and_grow.MovePlan(ones=one, replaced=one)
    >>> inner = drop_and_grow.drop_and_grow(optax.sgd(0.1), mask, ("w",), moves, every=100)
    >>> optimizer = with_history(inner, ("w",))
    >>> _, state = optimizer.update(gradient, optimizer.init(params), params, move=True)
    >>> state.mask["w"].tolist(), state.ever["w"].tolist(), float(state.grown)
    ([False, False, False, True], [True, True, True, True], 1.0)
    """

    def init(params: Params) -> History:
        inner = optimizer.init(params)
        return History(inner, mask_of(inner), jnp.zeros((), float))

    def update(
        gradient: Params, state: History, params: Params | None = None, **extra: Any
    ) -> tuple[Params, History]:
        updates, inner = optimizer.update(gradient, state.inner, params, **extra)
        before, now = state.mask, mask_of(inner)
        new = jax.tree.map(lambda old, keep: keep & ~old, before, now)
        grown = state.grown + masks.count(new, prunable)
        ever = jax.tree.map(jnp.logical_or, state.ever, now)
        return updates, History(inner, ever, grown)

    return optax.GradientTransformationExtraArgs(init, update)
