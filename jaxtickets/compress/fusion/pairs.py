"""The most similar pairs are fused first, until as few units are left as asked."""

import numpy as np

from jaxtickets.compress.fusion.base import Layer, Partners
from jaxtickets.compress.fusion.similarity import (
    cosines_of,
    gram_cosines,
    gram_of,
    lengths,
    nearest,
)
from jaxtickets.types import Key


def cosine(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Pairs by the cosine of their incoming weights; the unit with the smaller norm goes.

    After Srinivas and Babu, "Data-free parameter pruning for deep neural networks", 2015, who
    measure `‖a_j‖² ‖W_i − W_j‖²` where the cosine stands here.

    >>> weights = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> layer = Layer(weights, bias=np.zeros(3), outgoing=np.ones((3, 1)), norm=False)
    >>> partners = cosine(jax.random.key(0), layer, keep=2, least_cosine=0.45)
    >>> partners.kept.tolist(), partners.share[1].tolist()
    ([True, False, True], [1.0, 0.0, 0.0])
    """
    del key
    similar = cosines_of(layer)
    kept = _kept_of(similar, lengths(layer), keep)
    return nearest(kept, 1 - similar, similar, least_cosine)


def activations(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """Pairs by the cosine of their outputs on data; the unit with the smaller outputs goes.

    >>> gram = np.array([[4.0, 0.0, 2.0], [0.0, 4.0, 0.0], [2.0, 0.0, 1.0]])
    >>> layer = Layer(np.ones((3, 1)), np.zeros(3), np.ones((3, 1)), norm=False, gram=gram)
    >>> partners = activations(jax.random.key(0), layer, keep=2, least_cosine=0.45)
    >>> partners.kept.tolist(), partners.share[2].tolist()
    ([True, True, False], [1.0, 0.0, 0.0])
    """
    del key
    similar = gram_cosines(layer)
    kept = _kept_of(similar, np.diag(gram_of(layer)), keep)
    return nearest(kept, 1 - similar, similar, least_cosine)


def _kept_of(similar: np.ndarray, size: np.ndarray, keep: int) -> np.ndarray:
    """bool`[units]`: the units left after the most similar pair has lost a unit, again and again.

    Args:
      similar: float`[units, units]`, symmetric.
      size: float`[units]`; the smaller of a pair goes, the second of equal ones.
      keep: the number of units that are left.
    """
    kept = np.ones(len(size), bool)
    for _ in range(len(size) - keep):
        kept[_smaller_of_nearest(similar, size, kept)[0]] = False
    return kept


def number_above(layer: Layer, least_cosine: float) -> int:
    """How many units are left if pairs are fused as long as a pair's cosine is that large.

    The cosine is that of the incoming weights. At least one unit is left.

    >>> weights = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> layer = Layer(weights, bias=np.zeros(3), outgoing=np.ones((3, 1)), norm=False)
    >>> number_above(layer, 0.45), number_above(layer, 0.0)
    (2, 1)
    """
    similar, size = cosines_of(layer), lengths(layer)
    kept = np.ones(len(size), bool)
    while kept.sum() > 1:
        goes, cosine = _smaller_of_nearest(similar, size, kept)
        if cosine < least_cosine:
            break
        kept[goes] = False
    return int(kept.sum())


def _smaller_of_nearest(
    similar: np.ndarray, size: np.ndarray, kept: np.ndarray
) -> tuple[int, float]:
    """The smaller unit of the most similar pair of kept units, and their similarity."""
    pairs = np.where(np.triu(np.outer(kept, kept), 1), similar, -np.inf)
    first, second = np.unravel_index(np.argmax(pairs), pairs.shape)
    goes = first if size[first] < size[second] else second
    return int(goes), float(pairs[first, second])
