"""SET, sparse evolutionary training: the smallest weights are replaced at random, again and again.

Each epoch, every leaf loses the share ζ = 0.3 of its positive weights nearest to zero and of its
negative ones, and as many grow at random places, at zero. Mocanu et al., "Scalable training of
artificial neural networks with adaptive sparse connectivity inspired by network science", 2018.

Deviation: the paper's first masks have the densities of an Erdős–Rényi graph, ε (n + o) / (n o),
which are the counts of `allocation.erk`; here they are the caller's choice. The paper's code builds
its optimiser anew in each epoch, so that all momentum is lost; here only that of replaced weights.
"""

from functools import partial

import numpy as np
import optax

from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.dynamic.rules import at_random, magnitude_by_sign
from jaxtickets.types import Key, Mask, Prunable

REPLACED = 0.3

plan = partial(plan_moves, fraction=REPLACED, decay=np.ones_like)
"""The counts of each move; all replace the same fraction, see `drop_and_grow.plan`."""


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

    >>> params = {"w": jnp.array([1.0, 2.0, 0.0, 0.0])}
    >>> mask, moves = {"w": params["w"] != 0}, MovePlan(ones=np.array([2]), replaced=np.array([1]))
    >>> optimizer = sparse_evolution(
    ...     optax.sgd(0.1), mask, ("w",), moves, every=100, key=jax.random.key(0)
    ... )
    >>> _, state = optimizer.update(params, optimizer.init(params), params, move=True)
    >>> state.mask["w"][1].tolist(), int(state.mask["w"].sum())  # 2.0 stays, 1.0 is replaced
    (True, 2)
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
