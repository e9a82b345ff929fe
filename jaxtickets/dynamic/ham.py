"""HAM, hyperbolic aware minimisation: a multiplicative step after each step of an optimiser.

    w <- w · exp(η (-α sign(w) g - β)),

with the exponent clipped to ±5: weights far from zero move faster, and those near it are drawn to
it without changing their sign. It combines with every sparse optimiser, as its inner one:

    rigl.rigl(ham.ham(optax.sgd(0.1), rate=0.1), mask, ...)

Jacobs et al., "HAM: a hyperbolic step to regulate implicit bias", 2025: α = 200 and β = 0.001, for
large nets on ImageNet. What α does depends on the size of gradients: where those of single weights
are as large as in a small net, 200 multiplies weights by up to exp(5) in one step, and diverges.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets.types import Array, Params

ALPHA, BETA, MOST = 200.0, 1e-3, 5.0


class HamState(NamedTuple):
    """The state of `ham`.

    Attributes:
      inner: the state of the inner optimiser.
      step: int32 scalar, the number of steps so far.
    """

    inner: optax.OptState
    step: Array


def ham(
    inner: optax.GradientTransformation,
    rate: float | Array | Callable[[Array], Array],
    alpha: float = ALPHA,
    beta: float = BETA,
) -> optax.GradientTransformationExtraArgs:
    """`inner` with a hyperbolic step after each of its steps.

    Args:
      inner: any optax optimiser.
      rate: η, the learning rate of the inner optimiser: a number, or step -> number.
      alpha: how much faster large weights move, 0 or more.
      beta: how strongly weights are drawn to zero, 0 or more.

    Raises:
      ValueError: `alpha` or `beta` is negative.

    >>> params, gradient = {"w": jnp.array([4.0, -8.0])}, {"w": jnp.zeros(2)}
    >>> optimizer = ham(optax.sgd(1.0), rate=1.0, beta=np.log(2))
    >>> updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].round(3).tolist()  # times exp(-beta)
    [2.0, -4.0]
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not value >= 0:
            raise ValueError(f"{name}={value}: must be 0 or more")
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> HamState:
        return HamState(inner.init(params), jnp.int32(0))

    def update(
        gradient: Params, state: HamState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, HamState]:
        if params is None:
            raise ValueError("ham's update needs the parameters")
        updates, inner_state = inner.update(gradient, state.inner, params, **extra)
        eta = rate(state.step) if callable(rate) else rate

        def leaf(w: Array, u: Array, g: Array) -> Array:
            reached = w + u
            power = eta * (-alpha * jnp.sign(reached) * g - beta)
            return reached * jnp.exp(jnp.clip(power, -MOST, MOST)) - w

        updates = jax.tree.map(leaf, params, updates, gradient)
        return updates, HamState(inner_state, state.step + 1)

    return optax.GradientTransformationExtraArgs(init, update)
