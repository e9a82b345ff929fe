"""Penalties that thin out a net during training, added to the loss (see `losses`).

`dynamic.proximal` has the group lasso as a step after the optimiser's, which reaches exact zeros.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets import masks, roles
from jaxtickets.types import Array, Params

Penalty = Callable[[Params, str], Array]
"""`penalty(params, output) -> scalar`; `output` names the output layer, whose units all stay."""

GROUPS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "filters": lambda ndim: (ndim - 1,),
    "channels": lambda ndim: (ndim - 2,) if ndim > 2 else (),
    "shapes": lambda ndim: tuple(range(ndim - 1)) if ndim > 2 else (),
    "inputs": lambda ndim: (0,) if ndim == 2 else (),
}
"""Groups of a kernel's weights: name -> the axes that number the groups, from the number of axes.

`()`: such a kernel has no groups of this kind. `filters`: the incoming weights of a filter or a
neuron, the column of a dense kernel. `channels`: the weights on an input channel of a convolution.
`shapes`: one position and input channel of a convolution, across its filters. `inputs`: the weights
on an input of a dense layer, the row of its kernel.
"""


def _magnitudes(weights: Array) -> jax.Array:
    """`|w|`, with gradient 0 at 0, where that of `jnp.abs` is 1."""
    return weights * jnp.sign(weights)


def scales(params: Params, output: str) -> jax.Array:
    """`Σ |γ|` over the scales of all batch norms; its subgradient at 0 is 0.

    Liu et al., "Learning efficient convolutional networks through network slimming", 2017, equation
    1. Channels whose scale is driven near zero can be pruned.

    Raises:
      ValueError: the net has no batch norm.

    >>> float(scales({"norm1": {"bias": np.ones(2), "scale": np.array([1.0, -2.0])}}, "out"))
    3.0
    """
    del output
    paths = tuple(path for path in masks.paths(params) if path.rpartition("/")[2] == "scale")
    if not paths:
        raise ValueError("there is no batch norm, so there are no scales to penalise")
    return sum((jnp.sum(_magnitudes(g)) for g in masks.pick(params, paths)), jnp.float32(0))


def group_squares(kernel: Array, groups: str) -> tuple[jax.Array, int]:
    """The squared norm of each group, with axes of length 1 kept, and the size of a group.

    Args:
      kernel: a kernel that has groups of this kind.
      groups: a name in `GROUPS`.

    >>> squares, size = group_squares(np.array([[3.0, 1.0], [4.0, 0.0]]), "filters")
    >>> squares.tolist(), size
    ([[25.0, 1.0]], 2)
    """
    numbered = GROUPS[groups](kernel.ndim)
    summed = tuple(axis for axis in range(kernel.ndim) if axis not in numbered)
    size = math.prod(kernel.shape[axis] for axis in summed)
    return jnp.sum(kernel**2, summed, keepdims=True), size


def group_lasso(params: Params, output: str, groups: str = "filters") -> jax.Array:
    """`Σ_g sqrt(|g|) · ‖w_g‖₂` over groups of weights g, such as the incoming weights of one unit.

    Wen et al., "Learning structured sparsity in deep neural networks", 2016, equation 3. The paper
    omits the square root of the group's size; it is included here as in Yuan and Lin, "Model
    selection and estimation in regression with grouped variables", 2006, so that layers with many
    and with few inputs are penalised alike. The last axis of a kernel is its units (see
    `roles.is_kernel`). The output layer and all biases are not penalised. The gradient at a group
    of zeros is zero.

    Args:
      params: the parameters.
      output: the name of the output layer.
      groups: a name in `GROUPS`.

    Raises:
      ValueError: the net has no kernel with such groups besides the output layer's.

    >>> params = {"fc1": {"kernel": np.array([[3.0, 0.0], [4.0, 0.0]])}}
    >>> round(float(group_lasso(params, "out")), 3)  # 5 times the square root of 2
    7.071
    """
    leaves = zip(masks.paths(params), jax.tree.leaves(params), strict=True)
    kernels = tuple(
        path
        for path, leaf in leaves
        if roles.is_kernel(path, leaf)
        and not path.startswith(f"{output}/")
        and GROUPS[groups](jnp.ndim(leaf))
    )
    if not kernels:
        if groups != "filters":
            raise ValueError(f"no layer besides the output has groups of {groups}")
        raise ValueError("there is no layer besides the output, so there are no units to penalise")
    total = jnp.float32(0)
    for kernel in masks.pick(params, kernels):
        squares, size = group_squares(kernel, groups)
        there = squares > 0
        norms = jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)
        total = total + size**0.5 * jnp.sum(norms)
    return total


def hoyer_square(params: Params, output: str) -> jax.Array:
    """`Σ_layers (Σ |w|)² / Σ w²` over all kernels, the output layer's too.

    A layer of n weights has a value between 1, with one weight, and n, with equal magnitudes. It
    does not depend on the layer's scale, so that it prunes without shrinking what stays: weights
    below `Σ w² / Σ |w|` are drawn to zero, larger ones grow. A layer of zeros counts nothing, and
    the gradient at a zero is zero. Yang et al., "DeepHoyer: learning sparser neural network with
    differentiable scale-invariant sparsity measures", 2020.

    Raises:
      ValueError: the net has no kernel.

    >>> kernel = np.array([[2.0, 2.0], [2.0, 0.0]])
    >>> float(hoyer_square({"fc1": {"kernel": kernel}}, "out"))
    3.0
    """
    del output
    total = jnp.float32(0)
    for kernel in masks.pick(params, masks.prunable(params)):
        squares = jnp.sum(kernel**2)
        there = squares > 0
        ratio = jnp.sum(_magnitudes(kernel)) ** 2 / jnp.where(there, squares, 1.0)
        total = total + jnp.where(there, ratio, 0.0)
    return total


PENALTIES: dict[str, Penalty] = {
    "scales": scales,
    "group_lasso": group_lasso,
    "hoyer_square": hoyer_square,
}
