"""Neuron fusion: a layer's units are fused into fewer, and the net becomes smaller by `shrink`.

`fuse(key, ticket, graph, keep, WHICH[...], HOW[...])` answers the questions of how many, which and
how; whether retraining is needed is the caller's.
"""

from jaxtickets.compress.fusion import clusters, combinations, pairs, scores, transport
from jaxtickets.compress.fusion.base import Combination, How, Layer, Partners, Which
from jaxtickets.compress.fusion.fuse import LEAST_COSINE, Fused, by_cosine, by_share, fuse
from jaxtickets.compress.fusion.layers import fusible, grams

WHICH: dict[str, Which] = {
    "l1": Which(scores.l1),
    "l2": Which(scores.l2),
    "geometric_median": Which(scores.geometric_median),
    "cosine": Which(pairs.cosine),
    "activations": Which(pairs.activations, needs_data=True),
    "kmeans": Which(clusters.kmeans),
    "hungarian": Which(transport.hungarian),
    "optimal_transport": Which(transport.optimal_transport, divides=True),
    "random": Which(scores.random),
}
HOW: dict[str, How] = {
    "prune": How(combinations.prune, needs_partners=False),
    "merge": How(combinations.merge),
    "average": How(combinations.average),
    "weighted": How(combinations.weighted),
    "regress": How(combinations.regress, needs_data=True),
}

__all__ = [
    "HOW",
    "LEAST_COSINE",
    "WHICH",
    "Combination",
    "Fused",
    "How",
    "Layer",
    "Partners",
    "Which",
    "by_cosine",
    "by_share",
    "fuse",
    "fusible",
    "grams",
]
