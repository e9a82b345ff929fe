"""Criteria made from other criteria: functions on their records."""

from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxtickets.criteria.base import Criterion, Evidence
from jaxtickets.types import Array, Key, Scores

Record = TypeVar("Record")


def inverted(criterion: Criterion) -> Criterion:
    """The scores' negatives: what was kept first goes first. A criterion should beat it."""

    def score(key: Key, evidence: Evidence) -> Scores:
        return jax.tree.map(jnp.negative, criterion.score(key, evidence))

    return criterion._replace(score=score)


def normalised(criterion: Criterion) -> Criterion:
    """Each leaf's scores over their Euclidean norm, so that a ranking of all leaves is fair.

    Molchanov et al., "Pruning convolutional neural networks for resource efficient inference",
    2017, section 2.2. A ranking within leaves is the same with and without.
    """

    def score(key: Key, evidence: Evidence) -> Scores:
        def leaf(s: Array) -> Array:
            return s / jnp.maximum(jnp.linalg.norm(s), jnp.finfo(s.dtype).tiny)

        return jax.tree.map(leaf, criterion.score(key, evidence))

    return criterion._replace(score=score)


def at_initialisation(criterion: Criterion) -> Criterion:
    """The scores of the first weights, whatever was trained: pruning at initialisation.

    `initial_fisher` is SNIP with the root of the mean of squared slopes over examples in place of
    the size of their mean, which noise of opposite signs makes small.
    """

    def score(key: Key, evidence: Evidence) -> Scores:
        return criterion.score(key, evidence._replace(params=evidence.init_params))

    return criterion._replace(score=score, looks_at="initial")


VARIANTS: dict[str, Callable[[Criterion], Criterion]] = {
    "inverted": inverted,
    "normalised": normalised,
    "initial": at_initialisation,
}


def split(
    name: str, table: Container[str], variants: Mapping[str, Any]
) -> tuple[tuple[str, ...], str]:
    """The variants' words that a name begins with, and the rest, which may be unknown.

    Args:
      name: such as `inverted_normalised_snip`: `("inverted", "normalised")` and `snip`.
      table: the known names: one that begins with a variant's word is a name all the same.
      variants: word -> variant.
    """
    for word in () if name in table else variants:
        if name.startswith(f"{word}_"):
            words, rest = split(name.removeprefix(f"{word}_"), table, variants)
            return (word, *words), rest
    return (), name


def resolve(
    name: str,
    table: Mapping[str, Record],
    variants: Mapping[str, Callable[[Record], Record]],
    kind: str,
) -> Record:
    """The record of that name, which may begin with variants: `inverted_normalised_snip`.

    Args:
      name, table, variants: see `split`.
      kind: what the records are, for the error.

    Raises:
      ValueError: there is none.
    """
    words, plain = split(name, table, variants)
    if plain not in table:
        raise ValueError(
            f"unknown {kind} '{plain}': one of {', '.join(table)}, or one of these after "
            f"{' or '.join(f'{word}_' for word in variants)}"
        )
    record = table[plain]
    for word in reversed(words):
        record = variants[word](record)
    return record
