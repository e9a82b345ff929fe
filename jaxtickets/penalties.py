"""Penalties that thin out a net unit by unit during training, added to the loss (see `losses`)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets import masks, roles
from jaxtickets.types import Array, Params

Penalty = Callable[[Params, str], Array]
"""`penalty(params, output) -> scalar`; `output` names the output layer, whose units all stay."""


def scales(params: Params, output: str) -> jax.Array:
    """`Σ |γ|` over the scales of all batch norms; its subgradient at 0 is 0.

    Liu et al., "Learning efficient convolutional networks through network slimming", 2017, equation
    1. Channels whose scale is driven near zero can be pruned.

    Raises:
      ValueError: the net has no batch norm.
    """
    del output
    paths = tuple(path for path in masks.paths(params) if path.rpartition("/")[2] == "scale")
    if not paths:
        raise ValueError("there is no batch norm, so there are no scales to penalise")
    return sum((jnp.sum(jnp.abs(g)) for g in masks.pick(params, paths)), jnp.float32(0))


def group_lasso(params: Params, output: str) -> jax.Array:
    """`Σ_g sqrt(|g|) · ‖w_g‖₂` over filters and neurons g, each the incoming weights of one unit.

    Wen et al., "Learning structured sparsity in deep neural networks", 2016, equation 3, for
    filters. The paper omits the square root of the group's size; it is included here as in Yuan and
    Lin, "Model selection and estimation in regression with grouped variables", 2006, so that layers
    with many and with few inputs are penalised alike. The last axis of a kernel is its units (see
    `roles.is_kernel`). The output layer and all biases are not penalised. The gradient at a group
    of zeros is zero.

    Raises:
      ValueError: the net has no kernel besides the output layer's.
    """
    leaves = zip(masks.paths(params), jax.tree.leaves(params), strict=True)
    kernels = tuple(
        path
        for path, leaf in leaves
        if roles.is_kernel(path, leaf) and not path.startswith(f"{output}/")
    )
    if not kernels:
        raise ValueError("there is no layer besides the output, so there are no units to penalise")
    total = jnp.float32(0)
    for kernel in masks.pick(params, kernels):
        groups = kernel.reshape(-1, kernel.shape[-1])
        squares = jnp.sum(groups**2, 0)
        there = squares > 0
        norms = jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)
        total = total + len(groups) ** 0.5 * jnp.sum(norms)
    return total


PENALTIES: dict[str, Penalty] = {"scales": scales, "group_lasso": group_lasso}
