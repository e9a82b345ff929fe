"""Sampled drop and grow, in the manner of CHTs: soft choices that harden as training goes on.

A move drops weights by sampling, with `p(keep) ∝ |w|^e`, and grows by sampling, with
`p(grow) ∝ score`, each without replacement. The exponent is `e = δ / (1 - δ)`, with δ rising
linearly from 0.5 to 0.75 over the training, so that e rises from 1 to 3. The share ζ = 0.3 of each
leaf is replaced each epoch. Zhang et al., "Brain network science modelling of sparse neural
networks enables transformers and LLMs to perform as fully connected", 2025, call the method CHTs.

Weights grow where many paths of length three run in the mask (`rules.paths`), without any gradient,
as in that paper, or by another score of `rules`.

Deviations from the paper's code: there e rises linearly itself, and links of neurons that have lost
all inputs or outputs are dropped and grown anew in each move. Its CHTss begins denser.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets.dynamic.drop_and_grow import MovePlan, drop_and_grow
from jaxtickets.dynamic.drop_and_grow import plan as plan_moves
from jaxtickets.dynamic.rules import Score, magnitude, paths, sampled
from jaxtickets.types import Array, Key, Mask, Prunable

REPLACED, SOFT, HARD = 0.3, 0.5, 0.75

plan = partial(plan_moves, fraction=REPLACED, decay=np.ones_like)
"""The counts of each move; all replace the same fraction, see `drop_and_grow.plan`."""


def chts(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    key: Key,
    steps: int,
    floor: int = 0,
    drop: Score = magnitude,
    grow: Score = paths,
    soft: float = SOFT,
    hard: float = HARD,
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser of sampled moves; see `drop_and_grow`.

    Args:
      inner, mask, prunable, moves, every, key, floor: see `drop_and_grow`.
      steps: the number of training steps over which δ rises.
      drop, grow: the scores from which weights are sampled, not negative.
      soft, hard: δ at first and in the end, in [0, 1).

    Raises:
      ValueError: see `drop_and_grow`, or δ is out of range.

    >>> params = {"w": jnp.array([[1.0, 2.0], [3.0, 0.0]])}
    >>> mask, moves = {"w": params["w"] != 0}, MovePlan(ones=np.array([3]), replaced=np.array([1]))
    >>> key = jax.random.key(0)
    >>> optimizer = chts(optax.sgd(0.1), mask, ("w",), moves, every=100, key=key, steps=1000)
    >>> _, state = optimizer.update(params, optimizer.init(params), params, move=True)
    >>> int(state.mask["w"].sum())  # which three is random
    3
    """
    for name, delta in (("soft", soft), ("hard", hard)):
        if not 0 <= delta < 1:
            raise ValueError(f"{name}={delta}: must be from 0 to below 1")
    calls = steps + steps // every

    def exponent(call: Array) -> Array:
        delta = soft + (hard - soft) * (call / calls).clip(0, 1)
        return delta / (1 - delta)

    return drop_and_grow(
        inner,
        mask,
        prunable,
        moves,
        every,
        drop=sampled(drop, exponent),
        grow=sampled(grow, lambda call: jnp.ones(())),
        floor=floor,
        key=key,
    )
