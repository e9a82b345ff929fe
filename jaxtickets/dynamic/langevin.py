"""Langevin noise: heat on the weights themselves, after each step of an optimiser.

    w <- w + sqrt(2 η T) · N(0, 1)

With gradient descent as the inner optimiser this is a walk whose weights are spread as
`exp(-loss / T)`, as the learning rate η goes to zero: Welling and Teh, "Bayesian learning via
stochastic gradient Langevin dynamics", 2011. Deep Rewiring (Bellec et al., 2018) has the same noise
on its weights, with which it samples masks. It combines with every sparse optimiser, as its inner
one: pruned weights have no noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.types import Array, Key, Params, Prunable

TEMPERATURE = 1e-6
OWN = 2**32 - 1
"""Folded into the key first, so that the sparse optimiser around it may have the same key."""


class LangevinState(NamedTuple):
    """The state of `langevin`.

    Attributes:
      inner: the state of the inner optimiser.
      step: int32 scalar, the number of steps so far.
    """

    inner: optax.OptState
    step: Array


def langevin(
    inner: optax.GradientTransformation,
    rate: float | Array | Callable[[Array], Array],
    prunable: Prunable,
    key: Key,
    temperature: Array | float = TEMPERATURE,
) -> optax.GradientTransformationExtraArgs:
    """`inner` with noise on the prunable weights after each of its steps.

    Args:
      inner: any optax optimiser.
      rate: η, the learning rate of the inner optimiser: a number, or step -> number.
      prunable: the leaves with noise.
      key: for the noise; it is only folded, see `OWN`.
      temperature: T, in nats of the loss, 0 or more; may be traced.

    Raises:
      ValueError: `temperature` is negative (not detected under tracing).

    >>> params, key = {"w": jnp.zeros(10_000), "b": jnp.zeros(1)}, jax.random.key(0)
    >>> optimizer = langevin(optax.sgd(0.5), 0.5, ("w",), key, temperature=1.0)
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> round(float(updates["w"].std()), 1), float(updates["b"].std())  # sqrt(2 · 0.5 · 1)
    (1.0, 0.0)
    """
    if not isinstance(temperature, jax.core.Tracer) and not float(temperature) >= 0:
        raise ValueError(f"temperature={temperature}: must be 0 or more")
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> LangevinState:
        return LangevinState(inner.init(params), jnp.int32(0))

    def update(
        gradient: Params, state: LangevinState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, LangevinState]:
        updates, inner_state = inner.update(gradient, state.inner, params, **extra)
        eta = rate(state.step) if callable(rate) else rate
        spread = jnp.sqrt(2 * eta * temperature)
        now = jax.random.fold_in(jax.random.fold_in(key, OWN), state.step)
        noisy = [
            u + spread * jax.random.normal(jax.random.fold_in(now, i), u.shape, u.dtype)
            for i, u in enumerate(masks.pick(updates, prunable))
        ]
        return masks.put(updates, prunable, noisy), LangevinState(inner_state, state.step + 1)

    return optax.GradientTransformationExtraArgs(init, update)
