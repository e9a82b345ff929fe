"""Criteria derived from other criteria: functions on their records."""

from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxtickets.criteria.base import Criterion, Evidence
from jaxtickets.types import Array, Key, Scores

Record = TypeVar("Record")


def inverted(criterion: Criterion) -> Criterion:
    """The negated scores, which reverse the order; any useful criterion should beat its inverse.

    >>> constant = Criterion(lambda key, evidence: {"w": np.array([3.0, 4.0])})
    >>> inverted(constant).score(jax.random.key(0), None)["w"].tolist()
    [-3.0, -4.0]
    """

    def score(key: Key, evidence: Evidence) -> Scores:
        return jax.tree.map(jnp.negative, criterion.score(key, evidence))

    return criterion._replace(score=score)


def normalised(criterion: Criterion) -> Criterion:
    """Each leaf's scores divided by their Euclidean norm, so that leaves can be ranked together.

    Molchanov et al., "Pruning convolutional neural networks for resource efficient inference",
    2017, section 2.2. Rankings within leaves do not change.

    >>> constant = Criterion(lambda key, evidence: {"w": np.array([0.0, 4.0])})
    >>> normalised(constant).score(jax.random.key(0), None)["w"].tolist()
    [0.0, 1.0]
    """

    def score(key: Key, evidence: Evidence) -> Scores:
        def leaf(s: Array) -> Array:
            return s / jnp.maximum(jnp.linalg.norm(s), jnp.finfo(s.dtype).tiny)

        return jax.tree.map(leaf, criterion.score(key, evidence))

    return criterion._replace(score=score)


def at_initialisation(criterion: Criterion) -> Criterion:
    """The scores of the initial weights, for pruning at initialisation.

    `initial_fisher` is like SNIP, but with the root mean square of the gradient over examples
    instead of the absolute value of its mean, in which opposite signs cancel.

    >>> value = at_initialisation(Criterion(lambda key, evidence: evidence.params))
    >>> value.looks_at, value.score(jax.random.key(0), Evidence(1.0, 2.0, {}, None, None, None))
    ('initial', 1.0)
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
    """Splits a name into its leading variants and the rest, which may be unknown.

    Args:
      name: for example `inverted_normalised_snip`, which gives `("inverted", "normalised")` and
        `snip`.
      table: the known names, which are not split even if they begin with a variant.
      variants: the variants by name.

    >>> split("inverted_normalised_snip", table=("snip",), variants=VARIANTS)
    (('inverted', 'normalised'), 'snip')
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
    """The record of a name, which may begin with variants: `inverted_normalised_snip`.

    Args:
      name, table, variants: see `split`.
      kind: what the records are, for the error message.

    Raises:
      ValueError: an unknown name.

    >>> resolve("inverted_one", {"one": 1}, {"inverted": lambda number: -number}, "number")
    -1
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
