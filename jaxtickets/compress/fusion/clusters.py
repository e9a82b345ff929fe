"""k-means of units: the unit nearest to each centre stays, its cluster is fused into it."""

import jax
import numpy as np

from jaxtickets.compress.fusion.base import Layer, Partners
from jaxtickets.compress.fusion.similarity import assigned, best, cosines_of, lengths
from jaxtickets.types import Key

MOST_ROUNDS = 100


def kmeans(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Spherical k-means of incoming weights and bias: clusters of directions.

    The centres start as k-means++ draws them (Arthur and Vassilvitskii, 2007): each from the units,
    with a probability in proportion to its distance `1 − cos` from the nearest centre so far. A
    cluster that loses all its units takes the unit that is farthest from its own centre.

    Raises:
      ValueError: there are more clusters than units.

    >>> weights = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> layer = Layer(weights, bias=np.zeros(3), outgoing=np.ones((3, 1)), norm=False)
    >>> partners = kmeans(jax.random.key(0), layer, keep=2, least_cosine=0.45)
    >>> partners.kept.tolist(), partners.share[1].tolist()
    ([True, False, True], [1.0, 0.0, 0.0])
    """
    if keep > len(layer.bias):
        raise ValueError(f"{keep} clusters of {len(layer.bias)} units: there must be fewer")
    rows = layer.rows
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(sizes > 0, sizes, 1)
    draw = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    labels, centres = _lloyd(rows, _first_centres(rows, keep, draw))
    near = np.where(labels[:, None] == np.arange(keep), rows @ centres.T, -np.inf)
    medoids = np.argmax(near, 0)  # with its cluster's units alone; those of an empty one repeat
    kept = np.zeros(len(rows), bool)
    kept[medoids[np.isfinite(near.max(0))]] = True
    spare = best(np.where(kept, -1, lengths(layer)), keep - int(kept.sum()))
    return assigned(kept | spare, medoids[labels], cosines_of(layer), least_cosine)


def _first_centres(rows: np.ndarray, keep: int, draw: np.random.Generator) -> np.ndarray:
    """Indices of units, int`[keep]`; those of equal directions only if nothing else is left."""
    chosen = [int(draw.integers(len(rows)))]
    while len(chosen) < keep:
        away = np.maximum(1 - (rows @ rows[chosen].T).max(1), 0)
        away[chosen] = 0
        if away.sum() <= 1e-9:
            away = np.ones(len(rows))
            away[chosen] = 0
        chosen.append(int(draw.choice(len(rows), p=away / away.sum())))
    return np.asarray(rows[chosen])


def _lloyd(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clusters' labels, int`[units]`, and their centres, float`[keep, inputs]`."""
    labels = np.full(len(rows), -1)
    for _ in range(MOST_ROUNDS):
        near = rows @ centres.T
        new = np.argmax(near, 1)
        for empty in np.flatnonzero(np.bincount(new, minlength=len(centres)) == 0):
            alone = np.bincount(new, minlength=len(centres))[new] == 1
            worst = int(np.argmin(np.where(alone, np.inf, near[np.arange(len(rows)), new])))
            new[worst] = empty
        if np.array_equal(new, labels):
            break
        labels = new
        sums = np.stack([rows[labels == i].sum(0) for i in range(len(centres))])
        sizes = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = sums / np.where(sizes > 0, sizes, 1)
    return labels, centres
