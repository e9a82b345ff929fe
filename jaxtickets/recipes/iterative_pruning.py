"""Iterative pruning without training in between, such as SynFlow's hundred rounds."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets import masks
from jaxtickets.criteria import Criterion, Evidence
from jaxtickets.types import Array, Keep, Key, Mask, Prunable, PyTree, Scores


def schedule(size: int, keep: int, rounds: int) -> np.ndarray:
    """int32`[rounds]`: the number kept after each round, `size · (keep / size)^(r / rounds)`.

    Exponential, as in SynFlow: every round keeps the same share of what remained.

    >>> schedule(size=1000, keep=1, rounds=3).tolist()
    [100, 10, 1]
    """
    share = np.arange(1, rounds + 1) / rounds
    return np.round(size * (keep / size) ** share).astype(np.int32)


def counts(sizes: Mapping[str, int], keep: Keep, rounds: int) -> PyTree:
    """The `schedule` of each leaf if `keep` maps paths to integers, else of all leaves together.

    Raises:
      ValueError: `rounds` is below 1.

    >>> counts({"a": 60, "b": 40}, keep=25, rounds=2).tolist()
    [50, 25]
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: must be 1 or more")
    if isinstance(keep, Mapping):
        return {path: schedule(sizes[path], count, rounds) for path, count in keep.items()}
    return schedule(sum(sizes.values()), keep, rounds)


def prune(
    key: Key,
    criterion: Criterion,
    evidence: Evidence,
    prunable: Prunable,
    keep: Keep,
    floor: Keep = 0,
    rounds: int | None = None,
) -> Mask:
    """The mask after `rounds` rounds; each round scores the weights that the previous one kept.

    Args:
      key: consumed; each round has its own.
      criterion: from `criteria`; its score receives `evidence.params` masked, and `prunable`.
      evidence: its mask is the initial mask; all True for a dense net.
      prunable: the leaves that are ranked.
      keep: the final count: an integer over all leaves ranked together, or path -> integer.
      floor: see `masks.select`.
      rounds: the number of rounds, 1 for one-shot pruning; None for the criterion's own number.

    Raises:
      ValueError: `rounds` is below 1, `keep` is below the floors or above the number of weights, or
        a score is NaN (not detected under tracing).

    >>> from jaxtickets.criteria import CRITERIA
    >>> params, dense = {"w": jnp.array([[1.0, -3.0, 2.0]])}, {"w": jnp.ones((1, 3), bool)}
    >>> evidence = Evidence(params, params, {}, dense, batches=None, loss=None)
    >>> prune(jax.random.key(0), CRITERIA["magnitude"], evidence, ("w",), keep=1)["w"].tolist()
    [[False, True, False]]
    """
    shapes = masks.shapes(evidence.mask, prunable)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    least = masks.floor_of(floor, shapes)
    wanted = counts(sizes, keep, criterion.rounds if rounds is None else rounds)
    if not isinstance(keep, Mapping) and not sum(least.values()) <= keep <= sum(sizes.values()):
        raise ValueError(
            f"keep={keep}: must be from {sum(least.values())} to {sum(sizes.values())}"
        )
    for path in keep if isinstance(keep, Mapping) else ():
        if not 0 <= keep[path] <= sizes[path]:
            raise ValueError(f"keep={keep[path]} in {path}: must be from 0 to {sizes[path]}")
    mask, unknown = prune_to(key, criterion, evidence, prunable, wanted, floor)
    if not isinstance(unknown, jax.core.Tracer) and bool(unknown):
        again = evidence._replace(prunable=prunable)
        criterion.score(key, again)  # outside of the scan its error says why
        raise ValueError("NaN among the scores: only numbers can be ranked")
    return mask


def prune_to(
    key: Key,
    criterion: Criterion,
    evidence: Evidence,
    prunable: Prunable,
    wanted: PyTree,
    floor: Keep = 0,
) -> tuple[Mask, Array]:
    """Like `prune`, but with the counts after each round as arrays: one scan serves all densities.

    Args:
      key, criterion, evidence, prunable, floor: as in `prune`.
      wanted: int`[rounds]`, or path -> int`[rounds]`, see `counts`; may be traced.

    Returns:
      The mask, and a bool scalar: whether a score was NaN, which makes the mask meaningless.

    >>> from jaxtickets.criteria import CRITERIA
    >>> params, dense = {"w": jnp.array([[1.0, -3.0, 2.0]])}, {"w": jnp.ones((1, 3), bool)}
    >>> evidence = Evidence(params, params, {}, dense, batches=None, loss=None)
    >>> two_then_one, key = np.array([2, 1], np.int32), jax.random.key(0)
    >>> mask, nan = prune_to(key, CRITERIA["magnitude"], evidence, ("w",), two_then_one)
    >>> mask["w"].tolist(), bool(nan)
    ([[False, True, False]], False)
    """

    def one(mask: Mask, element: tuple[Key, PyTree]) -> tuple[Mask, Array]:
        k, count = element
        left = masks.counts(mask, prunable)  # fewer than scheduled if the initial mask is sparse
        if isinstance(count, Mapping):
            count = {path: jnp.minimum(count[path], n) for path, n in left.items()}
        else:
            count = jnp.minimum(count, sum(left.values()))
        params = masks.apply(mask, evidence.params)
        seen = evidence._replace(params=params, mask=mask, prunable=prunable)
        scores = criterion.score(k, seen)
        pairs = zip(masks.pick(mask, prunable), masks.pick(scores, prunable), strict=True)
        unknown = jnp.stack([jnp.any(m & jnp.isnan(s)) for m, s in pairs]).any()
        return narrow(scores, mask, prunable, count, floor), unknown

    wanted = jax.tree.map(jnp.asarray, wanted)
    rounds = jax.tree.leaves(wanted)[0].shape[0]
    mask, unknown = lax.scan(one, evidence.mask, (jax.random.split(key, rounds), wanted))
    return mask, jnp.any(unknown)


def narrow(scores: Scores, mask: Mask, prunable: Prunable, keep: Keep, floor: Keep = 0) -> Mask:
    """Keeps the `keep` highest scores among those that `mask` keeps; pruned weights stay pruned.

    `keep` must not exceed the number of kept weights, nor `floor` that of any leaf. A NaN score of
    a kept weight raises an error outside of tracing; under tracing it ranks lowest.

    Raises:
      ValueError: as in `masks.select`, or the mask does not match the scores.

    >>> scores, mask = {"w": jnp.array([[1.0, 3.0, 2.0]])}, {"w": jnp.array([[True, False, True]])}
    >>> narrow(scores, mask, ("w",), keep=1)["w"].tolist()
    [[False, False, True]]
    """
    masks.check_mask(mask, scores, of="the scores")

    def leaf(m: Array, s: Array) -> Array:
        lowest = jnp.finfo(s.dtype).min
        known = jnp.where(jnp.isnan(s) & m, lowest, jnp.maximum(s, lowest))
        return jnp.where(m, known if isinstance(s, jax.core.Tracer) else s, -jnp.inf)

    left = jax.tree.map(leaf, mask, scores)
    return masks.select(left, prunable, keep, floor)
