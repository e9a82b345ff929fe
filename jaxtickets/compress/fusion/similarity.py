"""Similarity of units, and the kept unit that is nearest to each removed one."""

import numpy as np

from jaxtickets.compress.fusion.base import Layer, Partners

BIAS_WEIGHT = 0.2
"""The part of the bias in the distance of units with batch norm."""


def cosines(rows: np.ndarray) -> np.ndarray:
    """float`[n, n]`: the cosines of all pairs of `rows[n, inputs]`; 0 for rows of zeros.

    >>> cosines(np.array([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])).tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return np.clip(unit @ unit.T, -1, 1)


def ratios(lengths: np.ndarray) -> np.ndarray:
    """float`[n, n]`: `lengths[i] / lengths[k]`; 0 where `lengths[k]` is.

    >>> ratios(np.array([1.0, 2.0])).tolist()
    [[1.0, 0.5], [2.0, 1.0]]
    """
    shape = len(lengths), len(lengths)
    below = np.broadcast_to(lengths[None], shape)
    above = np.broadcast_to(lengths[:, None], shape)
    return np.divide(above, below, out=np.zeros(shape), where=below > 0)


def lengths(layer: Layer) -> np.ndarray:
    """float`[units]`: the norms of the vectors that `cosines_of` compares.

    >>> layer = Layer(np.array([[3.0], [6.0]]), np.array([4.0, 8.0]), np.ones((2, 1)), norm=False)
    >>> lengths(layer).tolist(), lengths(layer._replace(norm=True)).tolist()
    ([5.0, 10.0], [3.0, 6.0])
    """
    return np.asarray(np.linalg.norm(_compared(layer), axis=1))


def cosines_of(layer: Layer) -> np.ndarray:
    """float`[units, units]`: the cosines of incoming weights, with the bias if there is no norm.

    >>> layer = Layer(np.array([[3.0], [3.0]]), np.array([4.0, -4.0]), np.ones((2, 1)), norm=False)
    >>> cosines_of(layer).round(2).tolist(), cosines_of(layer._replace(norm=True)).tolist()
    ([[1.0, -0.28], [-0.28, 1.0]], [[1.0, 1.0], [1.0, 1.0]])
    """
    return cosines(_compared(layer))


def gram_cosines(layer: Layer) -> np.ndarray:
    """float`[units, units]`: the cosines of the units' outputs over data.

    >>> gram = np.array([[4.0, 1.0], [1.0, 1.0]])
    >>> layer = Layer(np.ones((2, 1)), np.zeros(2), np.ones((2, 1)), norm=False, gram=gram)
    >>> gram_cosines(layer).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    gram = gram_of(layer)
    sizes = np.sqrt(np.diag(gram))
    both = sizes[:, None] * sizes[None]
    return np.divide(gram, both, out=np.zeros_like(gram), where=both > 0)


def gram_of(layer: Layer) -> np.ndarray:
    """The layer's `gram`.

    Raises:
      ValueError: there is none.

    >>> layer = Layer(np.ones((2, 1)), np.zeros(2), np.ones((2, 1)), norm=False)
    >>> gram_of(layer._replace(gram=np.eye(2))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> gram_of(layer)
    Traceback (most recent call last):
    ValueError: the rule needs the units' outputs on data: give grams
    """
    if layer.gram is None:
        raise ValueError("the rule needs the units' outputs on data: give grams")
    return layer.gram


def distances(layer: Layer, kept: np.ndarray) -> np.ndarray:
    """float`[units, units]`: how far unit i is from unit k.

    Without batch norm `1 − cos` of incoming weights and bias. With it,
    `.8 (1 − cos) + .2 |b_i − s b_k|`, where s is the ratio of the norms of the (folded) weights,
    and the second term is scaled from 0 to 1 over the kept units k. Kim et al., "Neuron merging:
    compensating for pruned neurons", 2020, section 3.3. Their constant
    `β_i − s' β_k + (γ_i / σ_i)(s μ_k − μ_i)` is the term with folded biases. Their code takes
    variances for σ, exchanges the two units, and divides the term by the scale.

    Args:
      layer: the layer.
      kept: bool`[units]`.

    >>> layer = Layer(np.eye(2), np.zeros(2), np.ones((2, 1)), norm=False)
    >>> distances(layer, kept=np.array([True, False])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    apart = 1 - cosines_of(layer)
    if not layer.norm:
        return apart
    off = np.abs(layer.bias[:, None] - ratios(lengths(layer)) * layer.bias[None])
    low, high = off[:, kept].min(1, keepdims=True), off[:, kept].max(1, keepdims=True)
    span = np.where(high > low, high - low, 1)
    return np.asarray((1 - BIAS_WEIGHT) * apart + BIAS_WEIGHT * (off - low) / span)


def nearest(
    kept: np.ndarray, distance: np.ndarray, cosine: np.ndarray, least_cosine: float
) -> Partners:
    """Each removed unit goes to the nearest kept one, unless their cosine is too small.

    Args:
      kept: bool`[units]`.
      distance: float`[units, units]`; of equal distances the first counts.
      cosine: float`[units, units]`.
      least_cosine: the smallest cosine of two units that are fused.

    >>> kept, distance = np.array([True, True, False]), np.array([[0, 9, 5], [9, 0, 1], [5, 1, 0]])
    >>> cosine = np.array([[1.0, 0.0, 0.2], [0.0, 1.0, 0.9], [0.2, 0.9, 1.0]])
    >>> nearest(kept, distance, cosine, least_cosine=0.45).share.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """
    among = np.where(kept[None], distance, np.inf)
    return assigned(kept, np.argmin(among, 1), cosine, least_cosine)


def assigned(
    kept: np.ndarray, partner: np.ndarray, cosine: np.ndarray, least_cosine: float
) -> Partners:
    """Each removed unit i goes to `partner[i]`, unless their cosine is too small.

    >>> cosine = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> kept, partner = np.array([True, False, False]), np.array([0, 0, 0])
    >>> assigned(kept, partner, cosine, least_cosine=0.45).share.tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    units = np.arange(len(kept))
    to = np.where(kept, units, partner)
    share = np.zeros((len(kept), len(kept)))
    share[units, to] = kept | (cosine[units, to] >= least_cosine)
    return Partners(kept, share)


def best(scores: np.ndarray, keep: int) -> np.ndarray:
    """bool`[units]`: the `keep` highest scores; of equal ones the first.

    >>> best(np.array([3.0, 1.0, 3.0, 2.0]), keep=2).tolist()
    [True, False, True, False]
    """
    kept = np.zeros(len(scores), bool)
    kept[np.argsort(-scores, kind="stable")[:keep]] = True
    return kept


def _compared(layer: Layer) -> np.ndarray:
    return layer.weights if layer.norm else layer.rows
