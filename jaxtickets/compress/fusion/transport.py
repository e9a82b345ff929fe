"""Removed units are shared out evenly among the kept ones, at the least total distance.

Singh and Jaggi, "Model fusion via optimal transport", 2020, match the neurons of two nets so; here
the two sides are the removed and the kept units of one layer. The kept units are those with the
largest L2 norms.
"""

import numpy as np

from jaxtickets.compress.fusion.base import Layer, Partners
from jaxtickets.compress.fusion.similarity import assigned, best, cosines_of, distances, lengths
from jaxtickets.types import Key

SMOOTHING = 0.05
"""The weight of the entropy, in units of the cosine distance."""
ROUNDS = 500


def hungarian(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """A matching: no kept unit has over `⌈removed / kept⌉` partners."""
    from scipy.optimize import linear_sum_assignment

    del key
    kept = best(lengths(layer), keep)
    goes, stays = np.flatnonzero(~kept), np.flatnonzero(kept)
    places = np.tile(stays, -(-len(goes) // len(stays)))
    cost = distances(layer, kept)[np.ix_(goes, places)]
    rows, columns = linear_sum_assignment(cost)
    partner = np.arange(len(kept))
    partner[goes[rows]] = places[columns]
    return assigned(kept, partner, cosines_of(layer), least_cosine)


def optimal_transport(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """A plan: a removed unit may be divided among kept ones, each of which gets an equal part.

    The plan minimises the distance minus `SMOOTHING` times its entropy: Cuturi, "Sinkhorn
    distances", 2013. Parts between units whose cosine is too small are left out, and the other
    parts of a unit are scaled up to 1.
    """
    del key
    kept = best(lengths(layer), keep)
    goes, stays = np.flatnonzero(~kept), np.flatnonzero(kept)
    plan = _sinkhorn(distances(layer, kept)[np.ix_(goes, stays)])
    plan = np.where(cosines_of(layer)[np.ix_(goes, stays)] >= least_cosine, plan, 0)
    total = plan.sum(1, keepdims=True)
    share = np.diag(kept.astype(float))
    share[np.ix_(goes, stays)] = np.divide(plan, total, out=np.zeros_like(plan), where=total > 0)
    return Partners(kept, share)


def _sinkhorn(cost: np.ndarray) -> np.ndarray:
    """The plan float`[m, n]` with equal sums of rows, and of columns, in logarithms."""
    m, n = cost.shape
    kernel, rows, columns = -cost / SMOOTHING, np.zeros(m), np.zeros(n)
    for _ in range(ROUNDS):
        rows = -np.log(m) - _log_sum(kernel + columns, 1)
        columns = -np.log(n) - _log_sum(kernel + rows[:, None], 0)
    return np.asarray(np.exp(kernel + rows[:, None] + columns))


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    most = values.max(axis, keepdims=True)
    return np.asarray(most.squeeze(axis) + np.log(np.exp(values - most).sum(axis)))
