"""GSM, global sparse momentum: only the weights that matter most at a step keep their gradient.

In each step, of all prunable weights together, the `kept` ones with the largest |w · dL/dw| get
their gradient. The others are moved by weight decay and their old momentum alone, so that most
fall to zero; one cut by |w| at the end costs little. Ding et al., "Global sparse momentum SGD for
pruning very deep neural networks", 2019. Leaves that are not prunable always get their gradient.

The inner optimiser must have weight decay. Its paper: momentum 0.99 (Nesterov), decay 5e-4, and
learning rate 0.01.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks
from jaxtickets.dynamic.base import View
from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.rules import taylor
from jaxtickets.types import Mask, Params, Prunable

CUT_AT = 0.95


def plan(moves: int, begin: int, end: int, floor: int = 0, cut_at: float = CUT_AT) -> MovePlan:
    """The counts of each move: `begin`, and from the share `cut_at` of the moves on, `end`.

    Raises:
      ValueError: an argument is out of range.

    >>> plan(moves=4, begin=100, end=10).ones.tolist()
    [100, 100, 100, 10]
    """
    del floor
    if not 0 < end <= begin or not 0 < cut_at <= 1:
        raise ValueError(
            f"begin={begin}, end={end}, cut_at={cut_at}: must be 0 < end <= begin, 0 < cut_at <= 1"
        )
    t = np.arange(1, moves + 1) / moves
    ones = np.where(t + 1e-9 >= cut_at, end, begin).astype(np.int32)
    return MovePlan(ones, np.zeros_like(ones))


def gsm(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    floor: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """GSM's sparse optimiser; see `drop_and_grow`. `mask` keeps all weights at first.

    As many weights keep their gradient as the last move of the plan keeps.

    Raises:
      ValueError: see `drop_and_grow`.

    >>> params, gradient = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([5.0, 1.0])}
    >>> mask, moves = {"w": np.ones(2, bool)}, MovePlan(ones=np.array([1]), replaced=np.array([0]))
    >>> optimizer = gsm(optax.sgd(1.0), mask, ("w",), moves, every=100)
    >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params, move=False)
    >>> optax.apply_updates(params, updates)["w"].tolist()  # |w · dL/dw| is 5 and 2
    [-4.0, 2.0]
    """

    def before(view: View) -> Params:
        active = masks.select(taylor(view), prunable, last, floor)
        return masks.apply(active, view.gradient)

    last = jax.tree.map(lambda table: jnp.asarray(table)[-1], moves.ones)
    return drop_and_grow(inner, mask, prunable, moves, every, floor=floor, before=before)
