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
    """Keeps the units with the largest `Σ |w|`."""
    del key
    return _kept(np.abs(layer.rows).sum(1), layer, keep, least_cosine)


def l2(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Keeps the units with the largest `(Σ w²)^½`."""
    del key
    return _kept(np.linalg.norm(layer.rows, axis=1), layer, keep, least_cosine)


def geometric_median(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Keeps the units farthest from the others, by the sum of their distances.

    He et al., "Filter pruning via geometric median", 2019, equation 4.
    """
    del key
    rows = layer.rows
    scores = np.array([np.linalg.norm(rows - row, axis=1).sum() for row in rows])
    return _kept(scores, layer, keep, least_cosine)


def random(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Keeps random units: the baseline."""
    scores = np.asarray(jax.random.uniform(key, (len(layer.bias),)))
    return _kept(scores, layer, keep, least_cosine)


def _kept(scores: np.ndarray, layer: Layer, keep: int, least_cosine: float) -> Partners:
    kept = best(scores, keep)
    return nearest(kept, distances(layer, kept), cosines_of(layer), least_cosine)
