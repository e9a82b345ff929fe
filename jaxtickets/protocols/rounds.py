"""Pruning in rounds without training in between, such as SynFlow's hundred at initialisation."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets import masks
from jaxtickets.criteria import Criterion, Evidence
from jaxtickets.types import Array, Keep, Key, Mask, Prunable


def schedule(size: int, keep: int, rounds: int) -> np.ndarray:
    """int`[rounds]`: what is left after each round, `size · (keep / size)^(r / rounds)`.

    Exponential, as SynFlow's: every round keeps the same share of what the one before left.
    """
    share = np.arange(1, rounds + 1) / rounds
    return np.round(size * (keep / size) ** share).astype(np.int32)


def prune(
    key: Key,
    criterion: Criterion,
    evidence: Evidence,
    prunable: Prunable,
    keep: Keep,
    floor: Keep = 0,
    rounds: int = 1,
) -> Mask:
    """The mask left after `rounds` rounds; each scores the weights that the one before left.

    One scan, so that it compiles once and can be batched.

    Args:
      key: consumed; each round has its own.
      criterion: see `criteria`; it sees `evidence.params` masked.
      evidence: its own mask is where the rounds begin; all of it, for a dense net.
      prunable: the leaves that are ranked.
      keep: the count in the end: an integer over all leaves ranked together, or path -> integer.
      floor: see `masks.select`.
      rounds: how many, 1 for one-shot.

    Raises:
      ValueError: `rounds` is below 1, or as in `masks.select`.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: must be 1 or more")
    sizes = {path: int(np.prod(s)) for path, s in masks.shapes(evidence.mask, prunable).items()}
    counts: Keep
    if isinstance(keep, Mapping):
        counts = {path: schedule(sizes[path], keep[path], rounds) for path in prunable}
    else:
        counts = schedule(sum(sizes.values()), keep, rounds)

    def one(mask: Mask, element: tuple[Key, Array]) -> tuple[Mask, None]:
        k, count = element
        seen = evidence._replace(params=masks.apply(mask, evidence.params), mask=mask)
        return narrow(criterion(k, seen), mask, prunable, count, floor), None

    elements = jax.random.split(key, rounds), jax.tree.map(jnp.asarray, counts)
    return lax.scan(one, evidence.mask, elements)[0]


def narrow(scores: Array, mask: Mask, prunable: Prunable, keep: Keep, floor: Keep = 0) -> Mask:
    """The `keep` highest of the survivors of `mask`; what is pruned stays pruned.

    `keep` is no more than is left, nor `floor` in any leaf.
    """
    left = jax.tree.map(lambda m, s: jnp.where(m, s, -jnp.inf), mask, scores)
    return masks.select(left, prunable, keep, floor)
