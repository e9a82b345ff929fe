"""How alike masks are, all pairs at once, beside what chance alone would give."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.types import Mask, Prunable


class Overlaps(NamedTuple):
    """What all pairs of `m` masks share.

    Attributes:
      both: path -> float`[m, m]`, the weights that both keep; the diagonal counts each mask's own.
      sizes: path -> the number of weights.
    """

    both: dict[str, np.ndarray]
    sizes: dict[str, int]


def overlaps(stacked: Mask, prunable: Prunable) -> Overlaps:
    """The overlaps of masks with a leading axis `[m]`, exact up to 2^24 weights a leaf."""
    leaves = dict(zip(prunable, masks.pick(stacked, prunable), strict=True))
    both = {path: np.asarray(_both(leaf), np.float64) for path, leaf in leaves.items()}
    return Overlaps(both, {path: leaf[0].size for path, leaf in leaves.items()})


@jax.jit
def _both(leaf: jax.Array) -> jax.Array:
    rows = leaf.reshape(leaf.shape[0], -1).astype(jnp.float32)
    return jnp.matmul(rows, rows.T, precision="highest")


def layer(seen: Overlaps, path: str) -> Overlaps:
    """The overlaps in one leaf alone."""
    return Overlaps({path: seen.both[path]}, {path: seen.sizes[path]})


def cosine(seen: Overlaps) -> np.ndarray:
    """`|a & b| / sqrt(|a| |b|)`, `[m, m]`; nan beside an empty mask."""
    return _over_norms(_sum(seen.both), seen)


def chance(seen: Overlaps) -> np.ndarray:
    """The cosine expected of random masks with the same count in each leaf, `[m, m]`.

    `Σ_l |a_l| |b_l| / n_l / sqrt(|a| |b|)`: what agreement about layers alone gives.
    """
    expected = {
        path: np.outer(np.diagonal(both), np.diagonal(both)) / seen.sizes[path]
        for path, both in seen.both.items()
    }
    return _over_norms(_sum(expected), seen)


def jaccard(seen: Overlaps) -> np.ndarray:
    """`|a & b| / |a | b|`, `[m, m]`; nan if both are empty."""
    both, kept = _sum(seen.both), _kept(seen)
    with np.errstate(invalid="ignore"):
        return both / (kept[:, None] + kept[None] - both)


def hamming(seen: Overlaps) -> np.ndarray:
    """The share of weights in which two masks differ, `[m, m]`."""
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
