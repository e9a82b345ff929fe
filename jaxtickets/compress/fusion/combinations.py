"""Rules of `how`: what becomes of the weights of units that are fused.

A unit with ReLU is positively homogeneous, `relu(s w · x) = s relu(w · x)`. A unit whose incoming
weights are s times those of a kept unit can therefore be removed without a trace: s times its
outgoing weights are added to those of the kept one.
"""

import numpy as np

from jaxtickets.compress.fusion.base import Combination, Layer, Partners
from jaxtickets.compress.fusion.similarity import gram_of, lengths, ratios

RIDGE = 1e-3
"""The ridge of `regress`, in mean squares of the kept units' outputs."""


def prune(layer: Layer, partners: Partners) -> Combination:
    """The removed units are lost: the control.

    >>> layer = Layer(np.array([[3.0], [6.0]]), np.zeros(2), np.ones((2, 1)), norm=False)
    >>> partners = Partners(kept=np.array([False, True]), share=np.array([[0.0, 1.0], [0.0, 1.0]]))
    >>> prune(layer, partners).outgoing.tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    del layer
    stays = np.diag(partners.kept.astype(float))
    return Combination(stays, stays)


def merge(layer: Layer, partners: Partners) -> Combination:
    """`a_k + Σ_i (‖w_i‖ / ‖w_k‖) a_i`: scaled outgoing weights are added, incoming ones stay.

    Kim et al., "Neuron merging: compensating for pruned neurons", 2020, theorem 1. With batch norm
    folded in, the ratio is their `s (γ_i / γ_k)(σ_k / σ_i)`; norms of folded weights have no sign,
    and neither has a kept unit with the opposite sign of γ a positive cosine.

    >>> layer = Layer(np.array([[3.0], [6.0]]), np.zeros(2), np.ones((2, 1)), norm=False)
    >>> partners = Partners(kept=np.array([False, True]), share=np.array([[0.0, 1.0], [0.0, 1.0]]))
    >>> merge(layer, partners).outgoing.tolist()  # 3 / 6 of the first one's
    [[0.0, 0.5], [0.0, 1.0]]
    """
    stays = np.diag(partners.kept.astype(float))
    return Combination(stays, partners.share * ratios(lengths(layer)) + _zero_lengths(layer, stays))


def average(layer: Layer, partners: Partners) -> Combination:
    """Incoming weights are averaged over the fused units, outgoing weights are summed.

    Exact for equal units; units of different norms are not rescaled.

    >>> layer = Layer(np.array([[3.0], [6.0]]), np.zeros(2), np.ones((2, 1)), norm=False)
    >>> partners = Partners(kept=np.array([False, True]), share=np.array([[0.0, 1.0], [0.0, 1.0]]))
    >>> incoming, outgoing = average(layer, partners)
    >>> incoming.tolist(), outgoing.tolist()
    ([[0.0, 0.5], [0.0, 0.5]], [[0.0, 1.0], [0.0, 1.0]])
    """
    del layer
    return Combination(_normalised(partners.share), partners.share)


def weighted(layer: Layer, partners: Partners) -> Combination:
    """Incoming directions are averaged with weights `‖w_i‖ ‖a_i‖`; outgoing ones as in `merge`.

    Large units, by the product of their norms, pull the common direction towards theirs. The kept
    unit's norm stays.

    >>> layer = Layer(np.array([[3.0], [6.0]]), np.zeros(2), np.ones((2, 1)), norm=False)
    >>> partners = Partners(kept=np.array([False, True]), share=np.array([[0.0, 1.0], [0.0, 1.0]]))
    >>> incoming, outgoing = weighted(layer, partners)
    >>> round(float(incoming[:, 1] @ layer.weights[:, 0]), 3), outgoing.tolist()
    (6.0, [[0.0, 0.5], [0.0, 1.0]])
    """
    sizes = lengths(layer)
    strength = np.linalg.norm(layer.outgoing, axis=1)  # ‖w_i‖ ‖a_i‖ times the direction w_i / ‖w_i‖
    drawn = _normalised(partners.share * strength[:, None])
    fused = np.linalg.norm(drawn.T @ _rows(layer), axis=1)
    incoming = drawn * np.divide(sizes, fused, out=np.zeros_like(sizes), where=fused > 0)[None]
    empty = partners.kept & ~incoming.any(0)
    incoming[empty, empty] = 1
    return Combination(incoming, merge(layer, partners).outgoing)


def regress(layer: Layer, partners: Partners) -> Combination:
    """Kept units stand in for the removed ones as well as they can on data, by ridge regression.

    With outputs H over data and the outgoing matrix M of `merge`, the removed units get
    `Z = (H_kᵀ H_k + λ I)⁻¹ (H_kᵀ H_r + λ M)`, which minimises `‖H_r − H_k Z‖² + λ ‖Z − M‖²`: data
    correct what neuron merging says. Luo et al., "ThiNet", 2017, section 3.2.3, regress the next
    layer's inputs so, without a prior.

    >>> gram = np.array([[1.0, 3.0], [3.0, 9.0]])  # outputs x and 3 x
    >>> layer = Layer(np.array([[3.0], [6.0]]), np.zeros(2), np.ones((2, 1)), norm=False, gram=gram)
    >>> partners = Partners(kept=np.array([False, True]), share=np.array([[0.0, 1.0], [0.0, 1.0]]))
    >>> regress(layer, partners).outgoing.round(2).tolist()
    [[0.0, 0.33], [0.0, 1.0]]
    """
    gram, kept = gram_of(layer), partners.kept
    prior = merge(layer, partners)
    inner = gram[np.ix_(kept, kept)]
    ridge = max(RIDGE * float(np.mean(np.diag(inner))), np.finfo(float).tiny)
    goes, outgoing = np.ix_(~kept, kept), prior.outgoing.copy()
    right = gram[np.ix_(kept, ~kept)] + ridge * prior.outgoing[goes].T
    outgoing[goes] = np.linalg.solve(inner + ridge * np.eye(len(inner)), right).T
    return Combination(prior.incoming, outgoing)


def _normalised(share: np.ndarray) -> np.ndarray:
    """Columns that sum to 1, or to 0."""
    total = share.sum(0, keepdims=True)
    return np.divide(share, total, out=np.zeros_like(share), where=total > 0)


def _zero_lengths(layer: Layer, stays: np.ndarray) -> np.ndarray:
    """1 for kept units without incoming weights, which have no ratio to themselves."""
    return np.asarray(stays * (lengths(layer) == 0)[None])


def _rows(layer: Layer) -> np.ndarray:
    return layer.weights if layer.norm else layer.rows
