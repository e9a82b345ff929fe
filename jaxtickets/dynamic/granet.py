"""GraNet: gradual pruning with regeneration, within one training that is sparse from its start.

After every round of training steps, the kept weights with the smallest |w| are dropped, and the
pruned weights with the largest |dL/dw| are grown, at zero. More are dropped than grown: of n
weights

    ones(t) = end + (begin - end) (1 - t / pruned_by)^3      are kept, until t = pruned_by,
    regrown · (1 + cos(π t / settled_by)) / 2 · ones(t)      of them newly grown, until settled_by,

with t the share of training that is over. Liu et al., "Sparse training via boosting pruning
plasticity with neuroregeneration", 2021, section 4. The cubic decay is from Zhu and Gupta ("To
prune, or not to prune", 2017), the cosine from RigL (Evci et al., 2020).

Deviations from the paper, because the goal here is a mask to rewind and not the trained net:
regeneration ranks all layers together, like pruning, whereas the paper grows in each layer as many
weights as it dropped there. The initial mask is the caller's choice, SNIP's in the experiments,
where the paper starts from a random one with ERK's counts. The regrown share starts at 0.3, not
0.5. The cosine ends before training does, so that the mask settles. The gradient is that of several
batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks, schedules
from jaxtickets.dynamic.base import sparse
from jaxtickets.shape_checks import check_array, check_leading
from jaxtickets.types import Array, Mask, Params, Prunable, PyTree

REGROWN, PRUNED_BY, SETTLED_BY = 0.3, 0.6, 0.75


class Rounds(NamedTuple):
    """The counts after each round of training steps.

    Attributes:
      ones: int32`[rounds]`, the number of kept weights.
      grown: int32`[rounds]`, how many of these are newly grown.
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
    """The counts after each round, by the equations above; the last keeps `end` and grows none.

    Args:
      rounds: the number of rounds, 2 or more.
      begin, end: the number of kept weights before the first round and at the end; `end <= begin`.
      least: the number of kept weights that must not be newly grown: the sum of all floors.
      regrown: the share of newly grown weights at first, in [0, 1).
      pruned_by, settled_by: shares of training, in (0, 1].

    Raises:
      ValueError: an argument is out of range.
    """
    if rounds < 2:
        raise ValueError(f"rounds={rounds}: must be 2 or more")
    if not max(least, 1) <= end <= begin:
        raise ValueError(
            f"begin={begin}, end={end}, least={least}: must be max(least, 1) <= end <= begin"
        )
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
    """The sparse optimiser that prunes its mask gradually and regenerates it, see above.

    A move follows every `every` training steps: it drops the weights with the smallest |w| and
    grows those with the largest |dL/dw|, at zero. A weight may be dropped and grown in the same
    move.

    Args:
      inner: the optimiser of the training steps; its moments must have one number for each weight.
      mask: bool, like the parameters: the initial mask, with the count from which `rounds` start.
      prunable: the leaves that are ranked, together.
      rounds: the counts after each move; after the last one the mask stays.
      every: the number of training steps between two moves.
      floor: the fewest weights that each leaf keeps.

    Raises:
      ValueError: `rounds` does not hold two int`[rounds]`, or the optimiser's moments do not have
        one number for each weight, see
        `optimizer_states.reset_moments`.
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

    (many,) = check_leading("the rounds", rounds, ("rounds",))
    for name, field in rounds._asdict().items():
        check_array(f"the rounds, {name}", field, (many,), int)
    rounds = jax.tree.map(jnp.asarray, rounds)
    return sparse(
        inner, mask, move, due=lambda calls: calls % (every + 1) == every, method=jnp.int32(0)
    )


def _below(params: Params) -> Params:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, -jnp.inf), params)
