"""GraNet at a temperature: what is dropped and grown is sampled, ever more sharply.

A move of GraNet (`granet`) is a proposal of an annealing whose temperature is zero. Here the kept
weights and the grown ones are samples without replacement, with

    p(keep) ∝ |w|^(1/τ),    p(grow) ∝ |dL/dw|^(1/τ'),

by noise on the logs of the scores (`rules.heated`), with exact counts. The temperatures fall with
the share of weights that the plan replaces, from `drop_heat` and `grow_heat` at the first move to
zero where nothing is replaced any more. At zero heat this is GraNet, bit for bit.

Every move is accepted. For moves that are accepted or rejected by the loss after them, and for
chains that help each other, see `recipes.annealed_training`.
"""

import jax
import jax.numpy as jnp
import optax

from jaxtickets.dynamic import granet, rules
from jaxtickets.dynamic.base import View
from jaxtickets.dynamic.drop_and_grow import MovePlan, Shares, drop_and_grow
from jaxtickets.dynamic.rules import Score
from jaxtickets.types import Array, Key, Mask, Prunable

HEAT = 0.3

plan = granet.plan
"""The counts of each move, those of GraNet."""


def annealed_granet(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    moves: MovePlan,
    every: int,
    key: Key,
    floor: int = 0,
    shares: Shares = "leaf",
    drop: Score = rules.magnitude,
    grow: Score = rules.gradient,
    drop_heat: Array | float = HEAT,
    grow_heat: Array | float = HEAT,
) -> optax.GradientTransformationExtraArgs:
    """The sparse optimiser of GraNet with sampled moves; see `drop_and_grow`.

    Args:
      inner, mask, prunable, moves, every, key, floor, shares: see `drop_and_grow`. The plan has a
        single count for all leaves.
      drop, grow: the scores from which weights are sampled, not negative.
      drop_heat, grow_heat: the temperatures at the first move, from 0 on; may be traced.

    Raises:
      ValueError: see `drop_and_grow`, or a temperature is negative (not detected under tracing).

    >>> params, gradient = {"w": jnp.array([1.0, 2.0, 3.0, 0.0])}, {"w": jnp.arange(4.0)}
    >>> mask, moves = {"w": params["w"] != 0}, MovePlan(ones=np.array([2]), replaced=np.array([1]))
    >>> optimizer = annealed_granet(
    ...     optax.sgd(0.1), mask, ("w",), moves, every=100, key=jax.random.key(0)
    ... )
    >>> _, state = optimizer.update(gradient, optimizer.init(params), params, move=True)
    >>> int(state.mask["w"].sum())  # which two is random
    2
    """
    for name, heat in (("drop_heat", drop_heat), ("grow_heat", grow_heat)):
        if not isinstance(heat, jax.core.Tracer) and not float(heat) >= 0:
            raise ValueError(f"{name}={heat}: must be 0 or more")
    replaced = jnp.asarray(moves.replaced, float)
    cooling = replaced / jnp.maximum(replaced[0], 1)

    def at(heat: Array | float) -> Score:
        def temperature(view: View) -> Array:
            return heat * cooling[jnp.minimum(view.method.moves, len(cooling) - 1)]

        return temperature

    return drop_and_grow(
        inner,
        mask,
        prunable,
        moves,
        every,
        drop=rules.heated(drop, at(drop_heat)),
        grow=rules.heated(grow, at(grow_heat)),
        shares=shares,
        floor=floor,
        key=key,
    )
