"""Statistics of ranks, on the host: a predictor's area under the curve, and rank correlation."""

import numpy as np


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """float`[n]`: the rank of each of `values[n]`, from 1; equal values share their mean rank."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[index]


def area_under_curve(ranks: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive has a higher score than a negative; ties count half.

    It is the area under the receiver operating characteristic, from Mann and Whitney's U:
    `(R - p (p + 1) / 2) / (p q)`, with p positives whose ranks sum to R, and q negatives. A guess
    has 0.5.

    Args:
      ranks: float`[n]`, the `mid_ranks` of the scores.
      positive: bool`[n]`.

    Returns:
      The area; None if there is no positive, or no negative.
    """
    p = int(positive.sum())
    q = len(positive) - p
    if not p or not q:
        return None
    return float((ranks[positive].sum() - p * (p + 1) / 2) / p / q)


def spearman(ranks: np.ndarray, others: np.ndarray) -> float | None:
    """Spearman's ρ: Pearson's correlation of two quantities' `mid_ranks`, float`[n]` each.

    Returns:
      The correlation; None if all values of one quantity are equal.
    """
    centred = ranks - ranks.mean(), others - others.mean()
    norms = [float(np.sqrt(np.sum(x * x))) for x in centred]
    return float(np.sum(centred[0] * centred[1])) / norms[0] / norms[1] if all(norms) else None
