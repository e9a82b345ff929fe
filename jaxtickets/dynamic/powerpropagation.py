"""Powerpropagation: weights train as powers, so that the large ones grow and the small ones stay.

Each weight is `w = θ |θ|^(α - 1)`, and the optimiser trains θ: its gradient is
`dL/dθ = α |θ|^(α - 1) dL/dw`. Since θ follows from w, `θ = sign(w) |w|^(1 / α)`, the parameters
stay those of the net, and the initialisation, too. It combines with sparse optimisers that only
prune, as their inner one:

    gradual.gradual(powerpropagation.powerpropagation(optax.sgd(0.1)), mask, ...)

A weight at zero has no gradient and stays there, so that grown weights would never move. Schwarz et
al., "Powerpropagation: a sparsity inducing weight reparameterisation", 2021: α from 2 to 5.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.types import Array, Params, Prunable

POWER = 2.0


def powerpropagation(
    inner: optax.GradientTransformation, power: float = POWER, prunable: Prunable | None = None
) -> optax.GradientTransformationExtraArgs:
    """`inner`, which trains θ in place of w.

    Args:
      inner: any optax optimiser; its weight decay is on θ.
      power: the power, 1 or more; 1 trains the weights themselves.
      prunable: the leaves that train as powers; None for all. Biases are better left out.

    Raises:
      ValueError: `power` is below 1.

    >>> params, gradient = {"w": jnp.array([4.0, 0.0])}, {"w": jnp.array([0.25, 0.25])}
    >>> optimizer = powerpropagation(optax.sgd(1.0))  # θ is 2, and its gradient 2 · 2 · 0.25
    >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [1.0, 0.0]
    """
    if not power >= 1:
        raise ValueError(f"power={power}: must be 1 or more")
    inner = optax.with_extra_args_support(inner)

    def only(new: Params, old: Params) -> Params:
        """`new` in the leaves that train as powers, `old` elsewhere."""
        return new if prunable is None else masks.put(old, prunable, masks.pick(new, prunable))

    def roots(params: Params) -> Params:
        return only(jax.tree.map(lambda w: jnp.sign(w) * jnp.abs(w) ** (1 / power), params), params)

    def init(params: Params) -> optax.OptState:
        return inner.init(roots(params))

    def update(
        gradient: Params, state: optax.OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, optax.OptState]:
        if params is None:
            raise ValueError("powerpropagation's update needs the parameters")
        theta = roots(params)
        scaled = only(
            jax.tree.map(lambda g, t: power * jnp.abs(t) ** (power - 1) * g, gradient, theta),
            gradient,
        )
        updates, state = inner.update(scaled, state, theta, **extra)

        def leaf(t: Array, u: Array, w: Array) -> Array:
            reached = t + u
            return reached * jnp.abs(reached) ** (power - 1) - w

        return only(jax.tree.map(leaf, theta, updates, params), updates), state

    return optax.GradientTransformationExtraArgs(init, update)
