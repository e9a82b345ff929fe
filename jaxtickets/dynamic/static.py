"""Static masking: the simplest sparse optimiser; its mask never changes."""

import optax

from jaxtickets.dynamic.base import sparse
from jaxtickets.types import Mask, Params, PyTree


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
    return sparse(inner, mask, fill=fill)


def sparsify(
    inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: PyTree
) -> optax.GradientTransformationExtraArgs:
    """`masked`, as a loop asks for it; see `base.Sparsify`."""
    del hyper
    return masked(inner, mask, fill)
