"""Removed units are shared out among the kept ones, at the least total distance.

Singh and Jaggi, "Model fusion via optimal transport", 2020, match the neurons of two nets so; here
the two sides are the removed and the kept units of one layer. The kept units are those with the
largest norms. None of them takes more than `⌈removed / kept⌉` units.
"""

import numpy as np

from jaxtickets.compress.fusion.base import Layer, Partners
from jaxtickets.compress.fusion.similarity import assigned, best, cosines_of, distances, lengths
from jaxtickets.types import Key

SMOOTHING = 0.02
"""The weight of the entropy, in units of the cosine distance."""
ROUNDS = 200


def hungarian(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """A matching: each removed unit goes to one kept unit.

    >>> weights = np.array([[9.0, 0.0], [0.0, 9.0], [1.0, 0.1], [1.0, 0.2]])
    >>> layer = Layer(weights, bias=np.zeros(4), outgoing=np.ones((4, 1)), norm=False)
    >>> partners = hungarian(jax.random.key(0), layer, keep=2, least_cosine=0.1)
    >>> partners.share[2:].tolist()  # each of the kept units takes one
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    from scipy.optimize import linear_sum_assignment

    del key
    kept = best(lengths(layer), keep)
    goes, stays = np.flatnonzero(~kept), np.flatnonzero(kept)
    places = np.tile(stays, _most(kept))
    cost = distances(layer, kept)[np.ix_(goes, places)]
    rows, columns = linear_sum_assignment(cost)
    partner = np.arange(len(kept))
    partner[goes[rows]] = places[columns]
    return assigned(kept, partner, cosines_of(layer), least_cosine)


def optimal_transport(key: Key, layer: Layer, keep: int, least_cosine: float) -> Partners:
    """A plan: a removed unit may be divided among kept ones.

    The plan minimises the distance minus `SMOOTHING` times its entropy: Cuturi, "Sinkhorn
    distances", 2013, with a bound on the columns in place of their sums (Benamou et al., "Iterative
    Bregman projections", 2015, section 5.1). Parts between units whose cosine is too small are left
    out, and the other parts of a unit are scaled up to 1.

    >>> weights = np.array([[9.0, 0.0], [0.0, 9.0], [1.0, 1.0]])
    >>> layer = Layer(weights, bias=np.zeros(3), outgoing=np.ones((3, 1)), norm=False)
    >>> partners = optimal_transport(jax.random.key(0), layer, keep=2, least_cosine=0.45)
    >>> partners.share[2].round(3).tolist()
    [0.5, 0.5, 0.0]
    """
    del key
    kept = best(lengths(layer), keep)
    goes, stays = np.flatnonzero(~kept), np.flatnonzero(kept)
    plan = _sinkhorn(distances(layer, kept)[np.ix_(goes, stays)], _most(kept))
    plan = np.where(cosines_of(layer)[np.ix_(goes, stays)] >= least_cosine, plan, 0)
    total = plan.sum(1, keepdims=True)
    share = np.diag(kept.astype(float))
    share[np.ix_(goes, stays)] = np.divide(plan, total, out=np.zeros_like(plan), where=total > 0)
    return Partners(kept, share)


def _most(kept: np.ndarray) -> int:
    """The most units that a kept one takes: `⌈removed / kept⌉`."""
    return -(-int((~kept).sum()) // int(kept.sum()))


def _sinkhorn(cost: np.ndarray, most: float) -> np.ndarray:
    """The plan float`[m, n]` whose rows sum to 1 and whose columns to `most` or less."""
    kernel, columns = -cost / SMOOTHING, np.zeros(cost.shape[1])
    for _ in range(ROUNDS):
        rows = -_log_sum(kernel + columns, 1)
        columns = np.minimum(np.log(most) - _log_sum(kernel + rows[:, None], 0), 0)
    return np.asarray(np.exp(kernel - _log_sum(kernel + columns, 1)[:, None] + columns))


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    most = values.max(axis, keepdims=True)
    return np.asarray(most.squeeze(axis) + np.log(np.exp(values - most).sum(axis)))
