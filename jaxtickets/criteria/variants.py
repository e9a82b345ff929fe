"""Criteria made from other criteria."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets.criteria.base import Criterion, Evidence
from jaxtickets.types import Array, Key, Scores


def inverted(criterion: Criterion) -> Criterion:
    """The scores' negatives: what was kept first goes first. A criterion should beat it."""

    def score(key: Key, evidence: Evidence) -> Scores:
        return jax.tree.map(jnp.negative, criterion(key, evidence))

    return score


def normalised(criterion: Criterion) -> Criterion:
    """Each leaf's scores over their Euclidean norm, so that a ranking of all leaves is fair.

    Molchanov et al., "Pruning convolutional neural networks for resource efficient inference",
    2017, section 2.2. A ranking within leaves is the same with and without.
    """

    def score(key: Key, evidence: Evidence) -> Scores:
        def leaf(s: Array) -> Array:
            return s / jnp.maximum(jnp.linalg.norm(s), jnp.finfo(s.dtype).tiny)

        return jax.tree.map(leaf, criterion(key, evidence))

    return score


def initial(criterion: Criterion) -> Criterion:
    """The scores of the first weights, whatever was trained: pruning at initialisation.

    `initial_fisher` is SNIP with the root of the mean of squared slopes over examples in place of
    the size of their mean, which noise of opposite signs makes small.
    """

    def score(key: Key, evidence: Evidence) -> Scores:
        return criterion(key, evidence._replace(params=evidence.init_params))

    return score


VARIANTS: dict[str, Callable[[Criterion], Criterion]] = {
    "inverted": inverted,
    "normalised": normalised,
    "initial": initial,
}
