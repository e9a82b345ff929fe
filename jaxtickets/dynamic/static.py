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

    >>> params, mask = {"w": jnp.array([3.0, 5.0])}, {"w": np.array([True, False])}
    >>> optimizer = masked(optax.sgd(1.0), mask)
    >>> updates, _ = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [2.0, 0.0]
    """
    return sparse(inner, mask, fill=fill)


def sparsify(
    inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: PyTree
) -> optax.GradientTransformationExtraArgs:
    """`masked`, as a loop asks for it; see `base.Sparsify`.

    >>> params, mask = {"w": jnp.array([3.0, 5.0])}, {"w": np.array([True, False])}
    >>> optimizer = sparsify(optax.sgd(1.0), mask, fill=None, hyper=())
    >>> updates, _ = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [2.0, 0.0]
    """
    del hyper
    return masked(inner, mask, fill)
