"""Kept units by a score of their own; each other unit goes to the kept one that is nearest to it.

Kim et al., "Neuron merging: compensating for pruned neurons", 2020, algorithm 1. The scores are of
incoming weights and bias with batch norm folded in, so that they measure what the unit computes;
the paper's are of the weights before batch norm.
"""

import jax
import numpy as np

from jaxtickets.compress.fusion.base import Layer, Partners
from jaxtickets.compress.fusion.similarity import best, cosines_of, distances, nearest
from jaxtickets.types import Key


def l1(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Keeps the units with the largest `Σ |w|`.

    >>> weights = np.array([[2.0, 2.0], [3.0, 0.0], [1.0, 0.0]])
    >>> layer = Layer(weights, bias=np.zeros(3), outgoing=np.ones((3, 1)), norm=False)
    >>> l1(jax.random.key(0), layer, keep=1, least_cosine=0.45).kept.tolist()
    [True, False, False]
    """
    del key
    return _kept(np.abs(layer.rows).sum(1), layer, keep, least_cosine)


def l2(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Keeps the units with the largest `(Σ w²)^½`.

    >>> weights = np.array([[2.0, 2.0], [3.0, 0.0], [1.0, 0.0]])
    >>> layer = Layer(weights, bias=np.zeros(3), outgoing=np.ones((3, 1)), norm=False)
    >>> l2(jax.random.key(0), layer, keep=1, least_cosine=0.45).kept.tolist()
    [False, True, False]
    """
    del key
    return _kept(np.linalg.norm(layer.rows, axis=1), layer, keep, least_cosine)


def geometric_median(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Keeps the units farthest from the others, by the sum of their distances.

    He et al., "Filter pruning via geometric median", 2019, equation 4.

    >>> weights = np.array([[0.0, 1.0], [1.0, 1.0], [9.0, 1.0]])
    >>> layer = Layer(weights, bias=np.zeros(3), outgoing=np.ones((3, 1)), norm=False)
    >>> geometric_median(jax.random.key(0), layer, keep=2, least_cosine=0.45).kept.tolist()
    [True, False, True]
    """
    del key
    rows = layer.rows
    scores = np.array([np.linalg.norm(rows - row, axis=1).sum() for row in rows])
    return _kept(scores, layer, keep, least_cosine)


def random(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Keeps random units: the baseline.

    >>> layer = Layer(np.ones((4, 2)), bias=np.zeros(4), outgoing=np.ones((4, 1)), norm=False)
    >>> int(random(jax.random.key(0), layer, keep=3, least_cosine=0.45).kept.sum())
    3
    """
    scores = np.asarray(jax.random.uniform(key, (len(layer.bias),)))
    return _kept(scores, layer, keep, least_cosine)


def _kept(scores: np.ndarray, layer: Layer, keep: int, least_cosine: float) -> Partners:
    kept = best(scores, keep)
    return nearest(kept, distances(layer, kept), cosines_of(layer), least_cosine)
