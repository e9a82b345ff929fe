"""Gradual magnitude pruning: a dense net loses its smallest weights by a cubic schedule.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
2017: `ones(t) = end + (begin - end) (1 - t / pruned_by)³`, and what is pruned stays so. The paper
gives all layers the same sparsity, which counts of each leaf do; a single count ranks all leaves
together.
"""

from functools import partial

import optax

from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.dynamic.rules import Score, magnitude
from jaxtickets.types import Mask, Prunable

PRUNED_BY = 0.75

plan = partial(plan_moves, pruned_by=PRUNED_BY)
"""The counts of each move, see `drop_and_grow.plan`."""


def gradual(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    floor: int = 0,
    drop: Score = magnitude,
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser that only prunes; see `drop_and_grow`.

    Raises:
      ValueError: see `drop_and_grow`.

    >>> params = {"w": jnp.array([1.0, -2.0, 3.0, -4.0])}
    >>> moves = MovePlan(ones=np.array([3, 2]), replaced=np.array([0, 0]))
    >>> optimizer = gradual(optax.sgd(0.1), {"w": np.ones(4, bool)}, ("w",), moves, every=100)
    >>> _, state = optimizer.update(params, optimizer.init(params), params, move=True)
    >>> state.mask["w"].tolist()
    [False, True, True, True]
    """
    return drop_and_grow(inner, mask, prunable, moves, every, drop=drop, floor=floor)
