"""A code of masks that learns where weights are kept, shorter than the entropy of their density.

A mask is coded row by row, a row being the outputs of one input. Each bit has the probability

    p = σ(log-odds of the density so far + Σ_f weight_f feature_f),

from what the decoder knows already: how many weights the output has so far, how many this row and
earlier ones have, what stands beside the bit in earlier rows, and how many weights make the input
in the layer before. The weights of the features are trained on the way, by the gradient of the
code's length, like those of Mahoney's "Adaptive weighing of context models for lossless data
compression", 2005. So there is no table. Rows are images' pixels or filters' taps, and a row is
like the one a *lag* before, the pixel above: the lag is read off the mask, and stored.

An arithmetic decoder must compute the encoder's probabilities to the bit, on another machine too.
Each logarithm and exponential is therefore rounded to a grid so coarse that the last bits of a
library's `log` don't matter, and features, weights and gradients are whole multiples of powers of
two, whose sums are exact in float64 in any order.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from constriction import stream

from jaxtickets.compress.entropy_coding import read_words, stored_words
from jaxtickets.types import Array

FIRST = np.array([32, 6, 0, 16, 3, 3, 10, 0, 0, 0, 10]) / 32
"""The first weights of the features, see `_features`; the first stays."""
RATE = 2.0**-7
"""The learning rate of the weights; lower for chunks above 32 bits, whose gradients are sums."""
FEATURE_BITS, WEIGHT_BITS = 6, 16
"""The grids of features, and of probabilities and weights: multiples of 2^-bits."""
CHUNKS, CHUNK_SIZES = 2**15, (16, 128)
"""Bits are coded in chunks of a row, after each of which counts and weights are brought up to date:
a sixteenth of a row, or so many bits that the mask has about `CHUNKS` chunks, between these sizes.
"""
MOST_LAG = 255

Code = Callable[[tuple[int, slice], np.ndarray], np.ndarray]
"""`code(place, probabilities[n]) -> bits[n]`: codes or decodes the bits at a place in the rows."""


def encode(mask: Array, earlier: Sequence[Array] = ()) -> bytes:
    """A mask in few bytes.

    Args:
      mask: bool`[..., o]`; the axes before the last are the rows.
      earlier: the masks coded before, which the decoder has too. The last of them that is no bias
        and whose number of outputs divides that of the rows is taken for the layer before.

    >>> mask = np.zeros((64, 64), bool)
    >>> mask[:, 5] = True  # one output's weights
    >>> len(encode(mask)) < 64 * 64 / 8 / 4
    True
    """
    rows = _rows(np.asarray(mask, bool))
    lag = _lag(rows.sum(1))
    encoder = stream.queue.RangeEncoder()
    family = stream.model.Bernoulli(perfect=False)

    def code(at: tuple[int, slice], probabilities: np.ndarray) -> np.ndarray:
        bits = rows[at]
        encoder.encode(bits.astype(np.int32), family, probabilities)
        return bits

    _run(code, rows.shape, lag, _hint(rows.shape, earlier))
    return bytes([lag]) + stored_words(encoder.get_compressed())


def decode(data: bytes, shape: tuple[int, ...], earlier: Sequence[Array] = ()) -> np.ndarray:
    """bool`[*shape]`: the inverse of `encode`, with the same `earlier`.

    Raises:
      ValueError: there are no data. Damaged data may give another mask.

    >>> mask = np.eye(8, dtype=bool)
    >>> np.array_equal(decode(encode(mask), mask.shape), mask)
    True
    """
    if not data or data[0] < 2:
        raise ValueError("the mask's lag is missing")
    rows = _rows(np.zeros(shape, bool))
    decoder = stream.queue.RangeDecoder(read_words(data[1:]))
    family = stream.model.Bernoulli(perfect=False)

    def code(at: tuple[int, slice], probabilities: np.ndarray) -> np.ndarray:
        rows[at] = decoder.decode(family, probabilities)
        return rows[at]

    _run(code, rows.shape, data[0], _hint(rows.shape, earlier))
    return rows.reshape(shape)


def _rows(mask: np.ndarray) -> np.ndarray:
    """bool`[rows, outputs]`."""
    return mask.reshape(-1, mask.shape[-1]) if mask.ndim and mask.size else mask.reshape(1, -1)


def _lag(kept: np.ndarray) -> int:
    """The period of the rows' counts: the lag, 2 or more, of the greatest positive covariance."""
    lags = np.arange(2, max(2, min(MOST_LAG, len(kept) // 4)) + 1)
    counts = len(kept) * kept - kept.sum()  # whole numbers
    found = [float(counts[lag:] @ counts[:-lag]) / max(1, len(kept) - lag) for lag in lags.tolist()]
    best = int(np.argmax(found))
    return int(lags[best]) if found[best] > 0 else 2


def _hint(shape: tuple[int, int], earlier: Sequence[Array]) -> np.ndarray:
    """float`[rows]`: the kept weights that make each input, over their mean; ones if not known."""
    for mask in reversed([mask for mask in earlier if np.ndim(mask) > 1]):
        made = _rows(np.asarray(mask, bool))
        if made.any() and shape[0] % made.shape[1] == 0:
            return np.tile(made.sum(0) * made.shape[1] / made.sum(), shape[0] // made.shape[1])
    return np.ones(shape[0])


def _run(code: Code, shape: tuple[int, int], lag: int, hint: np.ndarray) -> None:
    """Calls `code` for each chunk of a mask, in order."""
    inputs, outputs = shape
    least, most = CHUNK_SIZES
    chunk = min(most, max(least, outputs // 16, inputs * outputs // CHUNKS))
    rate = RATE * min(1, 32 / chunk)
    # the rows before the first are empty
    seen, per_row = np.zeros((inputs + lag + 1, outputs)), np.zeros(inputs + lag + 1)
    per_output, total, weights = np.zeros(outputs), 0, FIRST
    for row in range(inputs):
        here = row + lag + 1
        above = [here - 1, here - lag, here - lag + 1]
        around = per_row[[*above, here - 2, here - lag - 1]]
        density = (total + 0.5) / (row * outputs + 2)
        some = 0.1 * density * outputs + 0.02
        features = _features(
            density=density,
            some=some,
            rows=row,
            per_output=per_output,
            near=np.array([around[0], around[1], around.sum()]),
            beside=seen[above],
            hint=hint[row],
        )
        for start in range(0, outputs, chunk):
            part = slice(start, min(start + chunk, outputs))
            now = (total + 0.5) / (row * outputs + start + 2)
            done = (per_row[here] + some) / (now * start + some)
            features[part, :2] = _grid(
                np.array([math.log(now / (1 - now)), math.log(done)]), FEATURE_BITS
            )
            mine = features[part]
            odds = np.clip(mine @ weights, -WEIGHT_BITS, WEIGHT_BITS)
            one = _grid(1 / (1 + np.exp(-odds)), WEIGHT_BITS)
            one = np.clip(one, 2.0**-WEIGHT_BITS, 1 - 2.0**-WEIGHT_BITS)
            bits = code((row, part), one)
            gradient = (bits - one) @ mine
            gradient[0] = 0
            weights = weights + _grid(rate * gradient, WEIGHT_BITS)
            seen[here, part] = bits
            kept = int(np.count_nonzero(bits))
            per_row[here] += kept
            total += kept
        per_output += seen[here]


def _features(
    density: float,
    some: float,
    rows: int,
    per_output: np.ndarray,
    near: np.ndarray,
    beside: np.ndarray,
    hint: float,
) -> np.ndarray:
    """`[outputs, 11]`: the features of a row's bits; logarithms of ratios to what is expected.

    The first two, the log-odds of the density so far and how full this row is, follow later.

    Args:
      density: of the rows before.
      some: what is added to counts of a row, so that a few weights prove little.
      rows: how many rows are coded.
      per_output: `[outputs]`, the kept weights of each output so far.
      near: the kept weights of the row before, of that a lag before, and of five rows near these.
      beside: `[3, outputs]`: the row before, that a lag before, and the one after that.
      hint: the input's kept weights in the layer before, over the mean.
    """
    features = np.zeros((len(per_output), len(FIRST)))
    features[:, 2] = 1
    features[:, 3] = np.log((per_output + 2 * density) / ((rows + 2) * density))
    expected = density * len(per_output) * np.array([1, 1, 5])
    features[:, 4:7] = np.log((near + some) / (expected + some))
    features[:, 7:10] = beside.T
    features[:, 10] = math.log((hint + 0.12) / 1.12)
    return _grid(features, FEATURE_BITS)


def _grid(values: np.ndarray, bits: int) -> np.ndarray:
    """The nearest multiples of `2^-bits`."""
    return np.rint(values * 2.0**bits) / 2.0**bits
