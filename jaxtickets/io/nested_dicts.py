"""Trees of nested dicts by the paths of their leaves, for files that name their arrays."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.types import PyTree


def flat(tree: PyTree, name: str = "trees") -> dict[str, np.ndarray]:
    """Path -> leaf, on the host, in the order of `jax.tree.leaves`.

    Args:
      tree: nested dicts, with string keys that are not empty and have no slash.
      name: what the tree is called in the error.

    Raises:
      ValueError: the tree is not made of such dicts, or one of them is empty.

    >>> leaves = flat({"fc1": {"bias": np.zeros(2), "kernel": np.ones((3, 2))}})
    >>> {path: leaf.shape for path, leaf in leaves.items()}
    {'fc1/bias': (2,), 'fc1/kernel': (3, 2)}
    """
    leaves = dict(zip(masks.paths(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True))
    plain = all(
        isinstance(getattr(step, "key", None), str) and step.key and "/" not in step.key
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
        for step in path
    )
    own: Any = jax.tree.structure(tree)
    if not plain or own != jax.tree.structure(nested(leaves)):
        raise ValueError(f"a ticket's {name} must be nested dicts with string keys without a slash")
    return leaves


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of leaves by their paths: the inverse of `flat`.

    >>> nested({"fc1/bias": 1, "fc1/kernel": 2, "scale": 3})
    {'fc1': {'bias': 1, 'kernel': 2}, 'scale': 3}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *layers, name = path.split("/")
        place = tree
        for layer in layers:
            place = place.setdefault(layer, {})
        place[name] = leaf
    return tree
