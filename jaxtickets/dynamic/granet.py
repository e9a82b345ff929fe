"""GraNet: gradual pruning with regeneration, in one training that is sparse from its start.

After every round of training steps some of the kept weights w go, the smallest |w|, and some of
the others come, at zero: those with the largest |dL/dw|. More go than come: of n weights

    ones(t) = end + (begin - end) (1 - t / pruned_by)^3      are kept until t = pruned_by,
    regrown · (1 + cos(π t / settled_by)) / 2 · ones(t)      come anew until t = settled_by,

t being the share of the training that is done. Liu et al., "Sparse training via boosting pruning
plasticity with neuroregeneration", 2021, section 4; the cubic fall is Zhu and Gupta's ("To prune,
or not to prune", 2017), the cosine that of RigL (Evci et al., 2020).

Deviations, since what is wanted here is a mask to rewind, and not the net that it ends with:
regeneration ranks all layers together, as pruning does, where the paper regrows in each layer as
many as went there; it begins with SNIP's mask and not a random one with ERK's counts (the caller's
choice), and its ratio at 0.3 and not 0.5; the cosine ends before the training does, so that the
mask has settled; the gradient is that of several batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks, schedules
from jaxtickets.dynamic.base import sparse
from jaxtickets.types import Array, Mask, Params, Prunable, PyTree

REGROWN, PRUNED_BY, SETTLED_BY = 0.3, 0.6, 0.75


class Rounds(NamedTuple):
    """What is kept after each round of training steps, int32`[rounds]`.

    Attributes:
      ones: kept weights.
      grown: those of them that come anew.
    """

    ones: Array
    grown: Array


def schedule(
    rounds: int,
    begin: int,
    end: int,
    least: int = 0,
    regrown: float = REGROWN,
    pruned_by: float = PRUNED_BY,
    settled_by: float = SETTLED_BY,
) -> Rounds:
    """What is kept after each of so many rounds, see above; the last keeps `end`, and none is new.

    Args:
      rounds: how many; 2 or more.
      begin, end: kept weights before the first round, and at the end; `end` is not above `begin`.
      least: of the kept weights, how many must not be new: all floors together.
      regrown: the share that comes anew at first, below 1.
      pruned_by, settled_by: shares of the training, above 0, at most 1.

    Raises:
      ValueError: something is out of range.
    """
    if rounds < 2:
        raise ValueError(f"{rounds} rounds: must be 2 at least")
    if not max(least, 1) <= end <= begin:
        raise ValueError(f"from {begin} to {end} weights, {least} at least: out of order")
    if not 0 <= regrown < 1:
        raise ValueError(f"regrown={regrown}: must be from 0 to below 1")
    for name, share in (("pruned_by", pruned_by), ("settled_by", settled_by)):
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share}: must be above 0 and at most 1")
    t = np.arange(1, rounds + 1) / rounds
    ones = np.round(end + (begin - end) * schedules.gradual(t, pruned_by)).astype(np.int32)
    new = regrown * (1 + np.cos(np.pi * np.minimum(t / settled_by, 1))) / 2
    grown = np.minimum(np.floor(ones * new), ones - least).astype(np.int32)
    return Rounds(ones, grown)


def granet(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    rounds: Rounds,
    every: int,
    floor: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser whose mask is pruned gradually and regenerated, see above.

    After every `every` training steps it moves: the smallest |w| are dropped and the largest
    |dL/dw| grown, from zero. What has just been dropped may grow again at once.

    Args:
      inner: the optimiser of training steps; it keeps a number a weight.
      mask: bool like the parameters: what is kept at first, as many as `rounds` come from.
      prunable: the leaves that are ranked, together.
      rounds: what is kept after each move, int32`[rounds]` each; after the last nothing moves.
      every: training steps between two moves.
      floor: the least that each leaf keeps.

    Raises:
      ValueError: the optimiser keeps no number a weight, see `optimizer_states.anew`.
    """

    def move(gradient: Params, params: Params, mask: Mask, method: PyTree) -> tuple[Mask, PyTree]:
        last = jnp.minimum(method, len(rounds.ones) - 1)
        drop_score = masks.apply(mask, jax.tree.map(jnp.abs, params), _below(params))
        kept, grown = rounds.ones[last] - rounds.grown[last], rounds.grown[last]
        stay = masks.select(drop_score, prunable, kept, floor)
        grow_score = jax.tree.map(
            lambda keep, g: jnp.where(keep, -jnp.inf, jnp.abs(g)), stay, gradient
        )
        new = masks.select(grow_score, prunable, grown)
        leaves = zip(masks.pick(stay, prunable), masks.pick(new, prunable), strict=True)
        return masks.put(stay, prunable, [a | b for a, b in leaves]), method + 1

    rounds = jax.tree.map(jnp.asarray, rounds)
    return sparse(
        inner, mask, move, due=lambda calls: calls % (every + 1) == every, method=jnp.int32(0)
    )


def _below(params: Params) -> Params:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, -jnp.inf), params)
