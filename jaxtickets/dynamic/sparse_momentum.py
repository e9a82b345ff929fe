"""Sparse momentum: replaced weights go to the leaves, and places, with the largest momentum.

Each epoch, every leaf loses its share of weights with the smallest |w|, by a cosine from 0.5 to
0.005. What is freed is divided among leaves in proportion to the mean |momentum| of their kept
weights, none above its free places, and in each the weights with the largest |momentum| are grown.
With Adam, momentum is m / sqrt(v). Dettmers and Zettlemoyer, "Sparse networks from scratch: faster
training without losing performance", 2019.

Pruned weights need a momentum to be compared, so the inner optimiser's momentum cannot serve: it
sees the gradients of the kept weights alone. A moving average of the dense gradient, m <- 0.9 m +
g, is kept beside it. In the paper's code, that is one buffer; it is not reset when weights are
dropped or grown, and neither is this one.

Deviation: the paper's code prunes at most as many weights in leaves below 20 % sparsity as their
sparsity, and fills leaves to 99 %; here leaves fill to the last place.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets.dynamic.base import View
from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.dynamic.rules import mean_of
from jaxtickets.types import Mask, Params, Prunable, PyTree, Scores

REPLACED, LAST, DECAY = 0.5, 0.005, 0.9


class Averages(NamedTuple):
    """Of the dense gradient.

    Attributes:
      momentum: float, like the parameters: `m <- decay · m + g`.
      squares: float, like the parameters: `v <- 0.999 v + 0.001 g²`; `()` unless adaptive.
    """

    momentum: Params
    squares: PyTree


plan = partial(plan_moves, fraction=REPLACED, last_fraction=LAST)
"""The counts of each move, see `drop_and_grow.plan`."""


def sparse_momentum(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    floor: int = 0,
    decay: float = DECAY,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser of sparse momentum; see `drop_and_grow`.

    Args:
      inner, mask, prunable, moves, every, floor: see `drop_and_grow`.
      decay: of the dense gradient's average, in [0, 1).
      adaptive: ranks by m / sqrt(v), with v the average of g² with decay 0.999, as in Adam.

    Raises:
      ValueError: see `drop_and_grow`, or the decay is out of range.

    >>> params = {"w": jnp.array([1.0, 2.0, 0.0, 0.0])}
    >>> gradient = {"w": jnp.array([0.0, 0.0, 7.0, 5.0])}
    >>> mask, moves = {"w": params["w"] != 0}, MovePlan(ones=np.array([2]), replaced=np.array([1]))
    >>> optimizer = sparse_momentum(optax.sgd(0.1), mask, ("w",), moves, every=100)
    >>> _, state = optimizer.update(gradient, optimizer.init(params), params, move=False)
    >>> _, state = optimizer.update(gradient, state, params, move=True)
    >>> state.mask["w"].tolist()
    [False, True, True, False]
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay}: must be from 0 to below 1")

    def after(view: View, params: Params) -> tuple[Params, Mask, PyTree]:
        averages = view.method.memory
        momentum = jax.tree.map(lambda m, g: decay * m + g, averages.momentum, view.gradient)
        averages = averages._replace(momentum=momentum)
        if adaptive:
            squares = jax.tree.map(
                lambda v, g: 0.999 * v + 0.001 * g * g, averages.squares, view.gradient
            )
            averages = averages._replace(squares=squares)
        return params, view.mask, view.method._replace(memory=averages)

    def score(view: View) -> Scores:
        averages = view.method.memory
        if not adaptive:
            return jax.tree.map(jnp.abs, averages.momentum)
        return jax.tree.map(
            lambda m, v: jnp.abs(m) / (jnp.sqrt(v) + 1e-8), averages.momentum, averages.squares
        )

    zero = jax.tree.map(lambda keep: jnp.zeros(jnp.shape(keep)), mask)
    return drop_and_grow(
        inner,
        mask,
        prunable,
        moves,
        every,
        grow=score,
        shares=mean_of(score),
        floor=floor,
        after=after,
        memory=Averages(zero, zero if adaptive else ()),
    )
