"""Groups of weights that a gate keeps or removes together: inputs of dense layers, and filters.

The groups of a dense kernel `[in, out]` are its inputs, the rows: the pixels that it reads, or the
units of the layer before it. Those of a convolution kernel `[..., in, out]` are its filters, the
last axis, each with its bias if the layer has one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.types import Array, Keep, Mask, Params, Prunable


def axis(kernel: Array) -> int:
    """The axis of a kernel along which its groups are.

    >>> axis(np.zeros((784, 300))), axis(np.zeros((5, 5, 1, 20)))
    (0, 3)
    """
    return 0 if jnp.ndim(kernel) == 2 else jnp.ndim(kernel) - 1


def kernels(params: Params, prunable: Prunable) -> list[Array]:
    """The kernels at the paths.

    Raises:
      ValueError: a leaf has no groups, such as a bias.

    >>> kernels({"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}, ("bias",))
    Traceback (most recent call last):
    ValueError: bias has no groups: its shape is (3,), and a kernel has two dimensions or more
    """
    leaves = masks.pick(params, prunable)
    for path, leaf in zip(prunable, leaves, strict=True):
        if jnp.ndim(leaf) < 2:
            shape = jnp.shape(leaf)
            message = f"its shape is {shape}, and a kernel has two dimensions or more"
            raise ValueError(f"{path} has no groups: {message}")
    return leaves


def sums(kernel: Array) -> jax.Array:
    """The sum of each group of a kernel: `[groups]`.

    >>> sums(np.array([[1, 2, 3], [10, 20, 30]])).tolist()
    [6, 60]
    """
    others = tuple(i for i in range(jnp.ndim(kernel)) if i != axis(kernel))
    return jnp.sum(kernel, axis=others)


def along(groups: Array, kernel: Array) -> jax.Array:
    """`groups[groups]` as an array that broadcasts to the kernel.

    >>> along(np.array([1, 10]), np.zeros((2, 3))).tolist()
    [[1], [10]]
    """
    sizes = [1] * jnp.ndim(kernel)
    sizes[axis(kernel)] = -1
    return jnp.reshape(groups, sizes)


def bias(params: Params, path: str) -> Prunable:
    """The path of the bias that belongs to the groups of the kernel at `path`, or nothing.

    >>> params = {"conv/kernel": np.zeros((5, 5, 1, 20)), "conv/bias": np.zeros(20)}
    >>> bias(params, "conv/kernel")
    ('conv/bias',)
    >>> bias({"fc/kernel": np.zeros((3, 2)), "fc/bias": np.zeros(2)}, "fc/kernel")
    ()
    """
    (kernel,) = masks.pick(params, (path,))
    found = f"{path.rpartition('/')[0]}/bias"
    return (found,) if axis(kernel) and found in masks.paths(params) else ()


def spread(params: Params, prunable: Prunable, groups: Sequence[Array], rest: Array) -> Params:
    """Like `params`: each group's value at its weights and its bias, and `rest` elsewhere.

    Args:
      params: the parameters.
      prunable: the kernels that have groups.
      groups: `[groups]` of each of them.
      rest: a scalar.

    >>> params = {"fc": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}}
    >>> tree = spread(params, ("fc/kernel",), [np.array([5, 6])], 1)
    >>> tree["fc"]["kernel"].tolist(), tree["fc"]["bias"].tolist()
    ([[5, 5, 5], [6, 6, 6]], [1, 1, 1])
    """
    tree = jax.tree.map(lambda leaf: jnp.broadcast_to(rest, jnp.shape(leaf)), params)
    for path, kernel, value in zip(prunable, masks.pick(params, prunable), groups, strict=True):
        full = jnp.broadcast_to(along(value, kernel), jnp.shape(kernel))
        tree = masks.put(tree, (path,), [full])
        for found in bias(params, path):
            tree = masks.put(tree, (found,), [value])
    return tree


def select(
    params: Params, prunable: Prunable, scores: Sequence[Array], keep: Keep, floor: Keep
) -> Mask:
    """The mask of the groups with the highest scores that fit into `keep` weights together.

    Groups are taken in the order of their scores, up to the first that does not fit: the count is
    below `keep` by less than the size of that group. Of two groups of one convolution with exactly
    the same score, of which only one fits, neither stays. Biases are not counted.

    Args:
      params: the parameters.
      prunable: the kernels that have groups.
      scores: float`[groups]` of each of them.
      keep, floor: see `masks.select`; floors are rounded up to whole groups.

    Raises:
      ValueError: see `masks.select`.

    >>> params, scores = {"kernel": np.zeros((3, 2))}, [jnp.array([0.1, 0.9, 0.5])]
    >>> select(params, ("kernel",), scores, keep=5, floor=0)["kernel"].tolist()
    [[False, False], [True, True], [True, True]]
    """
    floors = masks.floor_of(floor, masks.shapes(params, prunable))
    for path, kernel in zip(prunable, masks.pick(params, prunable), strict=True):
        size = kernel.size // kernel.shape[axis(kernel)]
        floors[path] = -(-floors[path] // size) * size
    of_weights = spread(params, prunable, scores, jnp.float32(0))
    mask = masks.select(of_weights, prunable, keep, floors)
    whole = [sums(~leaf) == 0 for leaf in masks.pick(mask, prunable)]
    return spread(params, prunable, whole, jnp.bool_(True))
