"""Relative indices: each kept weight's distance from the one before, in few bits.

The kept weights of a flattened leaf are at i_1 < i_2 < ...; a weight's index is the number of
pruned weights between it and the one before, `i_j - i_{j-1} - 1`, with `i_0 = -1`. Where that does
not fit in the bits, a filler takes the greatest index, F = 2^bits - 1, and stands for F pruned
weights: a distance d is `d // F` fillers and the index `d % F`.

Han, Mao and Dally, "Deep Compression", 2016, section 2 and figure 2, with 5 bits for dense layers
and 8 for convolutions. There a filler is a weight of value zero, in the code of the values too.
Here the index alone tells a filler, so that no value is stored for it, at the price of the one
index which no weight can have.
"""

import numpy as np

from jaxtickets.types import Array

DENSE_BITS, CONVOLUTION_BITS = 5, 8
"""The paper's numbers of bits."""


def index_bits(shape: tuple[int, ...]) -> int:
    """The paper's bits of an index: 8 for a convolution (more than two axes), else 5.

    >>> index_bits((784, 300)), index_bits((5, 5, 1, 20))
    (5, 8)
    """
    return CONVOLUTION_BITS if len(shape) > 2 else DENSE_BITS


def relative_indices(mask: Array, bits: int) -> np.ndarray:
    """int64`[kept + fillers]`: the indices of a mask's kept weights, in flattened order.

    Args:
      mask: bool, of any shape.
      bits: the bits of an index, 1 to 32.

    Raises:
      ValueError: `bits` is out of range.

    >>> relative_indices(np.array([0, 1, 1, 0, 0, 0, 0, 1]), bits=2).tolist()  # 4 zeros are 3 and 1
    [1, 0, 3, 1]
    """
    filler = _filler(bits)
    places = np.flatnonzero(np.asarray(mask, bool))
    distances = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(distances // filler + 1)
    indices = np.full(ends[-1] if len(ends) else 0, filler)
    indices[ends - 1] = distances % filler
    return indices


def mask_of(indices: np.ndarray, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """bool`[*shape]`: the inverse of `relative_indices`.

    Raises:
      ValueError: the indices lead past the end of the leaf, or `bits` is out of range.

    >>> mask_of(np.array([1, 0, 3, 1]), (8,), bits=2).astype(int).tolist()
    [0, 1, 1, 0, 0, 0, 0, 1]
    """
    filler = _filler(bits)
    indices = np.asarray(indices, np.int64)
    places = np.cumsum(indices + (indices != filler)) - 1
    mask = np.zeros(shape, bool)
    kept = places[indices != filler]
    if len(kept) and kept[-1] >= mask.size:
        raise ValueError(f"relative indices lead to weight {kept[-1]} of {mask.size}")
    mask.reshape(-1)[kept] = True
    return mask


def _filler(bits: int) -> int:
    """The greatest index."""
    if not 1 <= bits <= 32:
        raise ValueError(f"relative indices of {bits} bits: must be 1 to 32")
    return 2**bits - 1
