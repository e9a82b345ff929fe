"""Shapes, ranks and types at the library's public doors: chex's assertions, in one line for users.

They look at shapes and types alone, of traced arrays too, and so cost compiled code nothing.
"""

from collections.abc import Sequence
from types import EllipsisType

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.types import Array, PyTree

Axes = Sequence[int | str | EllipsisType]
"""The axes of an array: a size, or the name of an axis of any size; at the end `...` for others."""

KINDS = {bool: "bool", int: "an integer type", float: "a float type"}


def check_array(name: str, array: Array, axes: Axes, kind: type | None = None) -> None:
    """Raises ValueError, in one line, unless the array has these axes and is of this kind.

    Args:
      name: what the array is, for the message.
      array: an array, a number, or what has a shape and a type.
      axes: `("n", "classes")`, `(12,)`, `("batches", "size", ...)`; `()` for a scalar.
      kind: `bool`, `int` or `float`, of any width; None for any.

    >>> check_array("the labels", np.zeros((2, 1), int), ("n",))
    Traceback (most recent call last):
    ValueError: the labels: the shape is (2, 1) and must be [n]
    """
    import chex  # here: a quarter of a second, that an error in a flag need not wait for

    array = array if hasattr(array, "dtype") else np.asarray(array)
    shape = jnp.shape(array)
    try:
        sizes = tuple(None if isinstance(axis, str) else axis for axis in axes)
        chex.assert_shape(jax.ShapeDtypeStruct(shape, bool), sizes)
    except AssertionError:
        wanted = ", ".join("..." if axis is ... else str(axis) for axis in axes)
        wanted = f"[{wanted}]" if axes else "() of a scalar"
        raise ValueError(f"{name}: the shape is {shape} and must be {wanted}") from None
    if kind is not None:
        dtype = jnp.result_type(array)
        try:
            chex.assert_type(jax.ShapeDtypeStruct(shape, dtype), kind)
        except AssertionError:
            raise ValueError(f"{name}: the type is {dtype} and must be {KINDS[kind]}") from None


def check_leading(name: str, tree: PyTree, axes: Sequence[str]) -> tuple[int, ...]:
    """The sizes of the leading axes, named `axes`, that all leaves of `tree` share.

    Raises:
      ValueError: in one line: there is no leaf, a leaf has fewer axes, or other sizes than the
        first.

    >>> check_leading("the batch", {"images": np.ones((5, 2)), "labels": np.ones(5)}, ("n",))
    (5,)
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    if not flat:
        raise ValueError(f"{name}: there is no array")
    (_, first), *_ = flat
    sizes: Axes = axes
    for path, leaf in flat:
        at = jax.tree_util.keystr(path, simple=True, separator="/")
        check_array(f"{name}, {at}" if at else name, leaf, (*sizes, ...))
        sizes = jnp.shape(first)[: len(axes)]
    return jnp.shape(first)[: len(axes)]
