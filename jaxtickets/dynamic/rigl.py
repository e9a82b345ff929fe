"""RigL: in each leaf, the smallest weights are replaced by those with the largest gradient.

Each move replaces the share `α (1 + cos(π t)) / 2` of a leaf's weights, with t the share of the
moves that are over: those with the smallest |w| are dropped, and those with the largest |dL/dw| are
grown, at zero. A move takes the place of a training step. Evci et al., "Rigging the lottery: making
all tickets winners", 2020, algorithm 1: α = 0.3, a move each 100 steps until 75 % of the training,
first masks random with ERK's counts.

As in the paper's code, a weight that is dropped may be grown in the same move; it then keeps its
value and its moments. Deviation: its code adds noise of 1e-5 to |w| against ties; here the first of
equal weights stay.
"""

from functools import partial

import optax

from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.dynamic.rules import Score, gradient, magnitude
from jaxtickets.types import Mask, Prunable

REPLACED, SETTLED_BY = 0.3, 0.75

plan = partial(plan_moves, fraction=REPLACED, settled_by=SETTLED_BY)
"""The counts of each move, see `drop_and_grow.plan`."""


def rigl(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    floor: int = 0,
    drop: Score = magnitude,
    grow: Score = gradient,
) -> optax.GradientTransformationExtraArgs:
    """RigL's sparse optimiser; see `drop_and_grow`.

    Raises:
      ValueError: see `drop_and_grow`.

    >>> params = {"w": jnp.array([1.0, 2.0, 0.0, 0.0])}
    >>> gradient = {"w": jnp.array([0.0, 0.0, 7.0, 5.0])}
    >>> mask, moves = {"w": params["w"] != 0}, MovePlan(ones=np.array([2]), replaced=np.array([1]))
    >>> optimizer = rigl(optax.sgd(0.1), mask, ("w",), moves, every=100)
    >>> _, state = optimizer.update(gradient, optimizer.init(params), params, move=True)
    >>> state.mask["w"].tolist()
    [False, True, True, False]
    """
    return drop_and_grow(inner, mask, prunable, moves, every, drop=drop, grow=grow, floor=floor)
