"""Similarities of masks, for all pairs at once, and the value expected by chance."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.shape_checks import check_array, check_leading
from jaxtickets.types import Mask, Prunable


class Overlaps(NamedTuple):
    """The overlaps of all pairs of `m` masks.

    Attributes:
      both: path -> float64`[m, m]`, the number of weights that both masks keep; on the diagonal,
        the count of each mask.
      sizes: path -> the number of weights in the leaf.
    """

    both: dict[str, np.ndarray]
    sizes: dict[str, int]


def overlaps(stacked: Mask, prunable: Prunable) -> Overlaps:
    """The overlaps of masks with a leading axis `[m]`; exact up to 2^24 weights in a leaf.

    Raises:
      ValueError: the leaves disagree on the number of masks, or are not bool.

    >>> masks_of_two = {"w": np.array([[True, True, False, False], [False, True, True, False]])}
    >>> seen = overlaps(masks_of_two, ("w",))
    >>> seen.both["w"].tolist(), seen.sizes
    ([[2.0, 1.0], [1.0, 2.0]], {'w': 4})
    """
    leaves = dict(zip(prunable, masks.pick(stacked, prunable), strict=True))
    (m,) = check_leading("the stacked masks", leaves, ("m",))
    for path, leaf in leaves.items():
        check_array(f"the stacked masks, {path}", leaf, (m, ...), bool)
    both = {path: np.asarray(_both(leaf), np.float64) for path, leaf in leaves.items()}
    return Overlaps(both, {path: leaf[0].size for path, leaf in leaves.items()})


@jax.jit
def _both(leaf: jax.Array) -> jax.Array:
    rows = leaf.reshape(leaf.shape[0], -1).astype(jnp.float32)
    return jnp.matmul(rows, rows.T, precision="highest")


def layer(seen: Overlaps, path: str) -> Overlaps:
    """The overlaps in one leaf.

    >>> seen = Overlaps({"a": np.eye(2), "b": np.ones((2, 2))}, {"a": 4, "b": 4})
    >>> layer(seen, "a").sizes
    {'a': 4}
    """
    return Overlaps({path: seen.both[path]}, {path: seen.sizes[path]})


def cosine(seen: Overlaps) -> np.ndarray:
    """`|a & b| / sqrt(|a| |b|)`, float64`[m, m]`; NaN if a mask is empty.

    >>> seen = Overlaps({"w": np.array([[2.0, 1.0], [1.0, 2.0]])}, {"w": 4})
    >>> cosine(seen).round(3).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    return _over_norms(_sum(seen.both), seen)


def chance(seen: Overlaps) -> np.ndarray:
    """float64`[m, m]`: the expected cosine of random masks with the same count in each leaf.

    `Σ_l |a_l| |b_l| / n_l / sqrt(|a| |b|)`: the similarity that agreement about layers alone gives.

    >>> seen = Overlaps({"w": np.array([[2.0, 1.0], [1.0, 2.0]])}, {"w": 4})
    >>> chance(seen).round(3).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    expected = {
        path: np.outer(np.diagonal(both), np.diagonal(both)) / seen.sizes[path]
        for path, both in seen.both.items()
    }
    return _over_norms(_sum(expected), seen)


def jaccard(seen: Overlaps) -> np.ndarray:
    """`|a & b| / |a | b|`, float64`[m, m]`; NaN if both are empty.

    >>> seen = Overlaps({"w": np.array([[2.0, 1.0], [1.0, 2.0]])}, {"w": 4})
    >>> jaccard(seen).round(3).tolist()
    [[1.0, 0.333], [0.333, 1.0]]
    """
    both, kept = _sum(seen.both), _kept(seen)
    with np.errstate(invalid="ignore"):
        return both / (kept[:, None] + kept[None] - both)


def hamming(seen: Overlaps) -> np.ndarray:
    """float64`[m, m]`: the share of weights at which two masks differ.

    >>> seen = Overlaps({"w": np.array([[2.0, 1.0], [1.0, 2.0]])}, {"w": 4})
    >>> hamming(seen).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    both, kept = _sum(seen.both), _kept(seen)
    return (kept[:, None] + kept[None] - 2 * both) / sum(seen.sizes.values())


MEASURES = {"cosine": cosine, "chance": chance, "jaccard": jaccard, "hamming": hamming}


def _sum(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.sum(list(parts.values()), axis=0)


def _kept(seen: Overlaps) -> np.ndarray:
    return np.diagonal(_sum(seen.both))


def _over_norms(both: np.ndarray, seen: Overlaps) -> np.ndarray:
    norms = np.sqrt(_kept(seen))
    with np.errstate(invalid="ignore", divide="ignore"):
        return both / np.outer(norms, norms)
