"""SET, sparse evolutionary training: the smallest weights are replaced at random, again and again.

Each epoch, every leaf loses the share ζ = 0.3 of its positive weights nearest to zero and of its
negative ones, and as many grow at random places, at zero. Mocanu et al., "Scalable training of
artificial neural networks with adaptive sparse connectivity inspired by network science", 2018.

Deviation: the paper's first masks have the densities of an Erdős–Rényi graph, ε (n + o) / (n o),
which are the counts of `allocation.erk`; here they are the caller's choice. The paper's code builds
its optimiser anew in each epoch, so that all momentum is lost; here only that of replaced weights.
"""

import optax

from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.dynamic.rules import at_random, magnitude_by_sign
from jaxtickets.types import Keep, Key, Mask, Prunable

REPLACED = 0.3


def plan(
    moves: int, begin: Keep, end: Keep, floor: int = 0, fraction: float = REPLACED
) -> MovePlan:
    """The counts of each move: the same fraction is replaced at all; see `drop_and_grow.plan`."""
    return plan_moves(moves, begin, end, fraction=fraction, last_fraction=fraction, floor=floor)


def sparse_evolution(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    key: Key,
    floor: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SET's sparse optimiser; see `drop_and_grow`.

    Raises:
      ValueError: see `drop_and_grow`.
    """
    return drop_and_grow(
        inner,
        mask,
        prunable,
        moves,
        every,
        drop=magnitude_by_sign,
        grow=at_random,
        floor=floor,
        key=key,
    )
