"""The incoming weights of units as rows, for criteria of units."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.criteria.base import single
from jaxtickets.types import Array, Params, Units


def filters(params: Params, group: Units) -> Array:
    """float`[units, weights]`: each unit's incoming weights, from all producers, without biases.

    A group that no layer computes alone, such as heads of attention, or filters that are
    concatenated with others inside a leaf, has all its weights of leaves with two axes instead,
    outgoing ones included.

    Raises:
      ValueError: a leaf has more weights of one unit than of another.

    >>> fc1 = Units("fc1", 2, ("fc1",), norms=(), consumers=())
    >>> filters({"fc1": {"kernel": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])}}, fc1).tolist()
    [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
    """
    if group.producers:
        kernels = single(masks.kernels(params, group.producers))
        return jnp.concatenate([k.reshape(-1, group.size).T for k in kernels], axis=1)
    leaves = dict(zip(masks.paths(params), jax.tree.leaves(params), strict=True))
    rows = []
    for path, axis, units in group.spans:
        if jnp.ndim(leaves[path]) > 1:
            rows.append(_rows(single(leaves[path]), axis, np.array(units), group))
    return jnp.concatenate(rows, axis=1)


def _rows(leaf: Array, axis: int, units: np.ndarray, group: Units) -> Array:
    """float`[units, weights]`: the weights of a leaf at the positions of each unit."""
    counts = np.bincount(units[units >= 0], minlength=group.size)
    if (counts != counts[0]).any():
        raise ValueError(f"a leaf has more weights of one unit of {group.name} than of another")
    places = np.argsort(units, kind="stable")[len(units) - counts.sum() :]
    return jnp.moveaxis(leaf, axis, 0)[places].reshape(group.size, -1)
