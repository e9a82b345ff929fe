"""Targeted dropout: what is to be pruned is dropped at random in training, so that it can go.

Of the weights into each unit, the share γ of smallest magnitude is targeted, and each of these is
dropped with probability α in a training step; what stays is not scaled up. Evaluation removes all
that is targeted. The unit form targets the share γ of the units with the smallest norm. Gomez et
al., "Learning sparse networks using targeted dropout", 2019, with (γ, α) such as (0.5, 0.5) and
(0.75, 0.66).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.gates.base import Gate, Setting
from jaxtickets.types import Array, Keep, Key, Mask, Params, Prunable, Scores

ALPHA, RAMP = 1.0, 0.5
EARLY = 0.95
"""The share of its full value that the targeted share has after the first half of the ramp."""

Sizes = Callable[[Array], tuple[Array, int]]
"""`sizes(kernel) -> (sizes[rows or 1, units], axis)`: those along the axis compete."""


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    alpha: float = ALPHA,
    ramp: float = RAMP,
) -> Gate:
    """Drops weights: of the n in each column of a kernel, the `floor(γ n)` smallest are targeted.

    The strength is γ, in [0, 1]; it may be traced. There is no penalty, and nothing trains beside
    the weights.

    Args:
      prunable: the leaves that are masked.
      keep, floor: how many weights the hard mask keeps, see `masks.select`: those of the highest
        rank in their column, relative to its length, so that all columns keep the same share but
        for rounding; `keep` None: all that γ does not target.
      setting: the number of training steps.
      alpha: α, the probability with which a targeted weight is dropped after the ramp.
      ramp: the share of the training after which γ and α have their full values, see `ramped`; 0
        for full values at once. The paper's ramp takes 40,000 steps.

    Raises:
      ValueError: `alpha` or `ramp` is not in [0, 1], or there is no training step.

    >>> made = gate(("w",), None, 0, Setting(steps=10, examples=100), alpha=1.0, ramp=0)
    >>> params = {"w": jnp.array([[1.0, -8.0], [2.0, 7.0], [3.0, 6.0], [4.0, 5.0]])}
    >>> used, _ = made.apply(jax.random.key(0), 0, (), params, 0.5)  # γ = 1/2: two of each column
    >>> used["w"].tolist()
    [[0.0, -8.0], [0.0, 7.0], [3.0, 0.0], [4.0, 0.0]]
    """
    return _gate(_of_weights, prunable, keep, floor, setting, alpha, ramp)


def unit_gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    alpha: float = ALPHA,
    ramp: float = RAMP,
) -> Gate:
    """Drops units: of the n columns of a kernel, the `floor(γ n)` of smallest L2 norm are targeted.

    A dropped unit loses its incoming weights, and keeps its bias. With `keep` given, the hard mask
    keeps exactly as many weights, unit by unit, so that the last unit of a count may be kept in
    part. See `gate` for all else.

    >>> made = unit_gate(("w",), None, 0, Setting(steps=10, examples=100), alpha=1.0, ramp=0)
    >>> params = {"w": jnp.array([[1.0, -8.0], [2.0, 7.0]])}
    >>> used, _ = made.apply(jax.random.key(0), 0, (), params, 0.5)  # γ = 1/2: one of two units
    >>> used["w"].tolist()
    [[0.0, -8.0], [0.0, 7.0]]
    """
    return _gate(_of_units, prunable, keep, floor, setting, alpha, ramp)


def ramped(
    step: Array, steps: float, gamma: Array | float, alpha: float
) -> tuple[Array | float, Array | float]:
    """γ and α at a training step.

    γ rises linearly to 95 % of its value in the first half of `steps`, and to all of it in the
    second; α rises linearly over both. `steps` 0: both have their full values.

    >>> for step in (0, 50, 100):
    ...     gamma, alpha = ramped(step, 100, gamma=0.5, alpha=0.5)
    ...     print(round(float(gamma), 3), round(float(alpha), 3))
    0.0 0.0
    0.475 0.25
    0.5 0.5
    """
    if not steps:
        return gamma, alpha
    t = jnp.clip(step / steps, 0, 1)
    share = EARLY * jnp.minimum(2 * t, 1) + (1 - EARLY) * jnp.maximum(2 * t - 1, 0)
    return gamma * share, alpha * t


def _of_weights(kernel: Array) -> tuple[Array, int]:
    return jnp.abs(kernel.reshape(-1, kernel.shape[-1])), 0


def _of_units(kernel: Array) -> tuple[Array, int]:
    return jnp.sum(kernel.reshape(-1, kernel.shape[-1]) ** 2, 0, keepdims=True), 1


def _spread(bits: Array, kernel: Array) -> Array:
    """`bits[rows or 1, units]` in the shape of the kernel."""
    return jnp.broadcast_to(bits, (kernel.size // kernel.shape[-1], kernel.shape[-1])).reshape(
        kernel.shape
    )


def _targeted(sizes: Sizes, kernel: Array, gamma: Array | float) -> Array:
    """bool`[rows or 1, units]`: the `floor(γ n)` smallest; of equal ones, the last."""
    values, axis = sizes(jax.lax.stop_gradient(kernel))
    n = values.shape[axis]
    count = jnp.floor(gamma * n * (1 + 1e-6))  # γ n may be a whole number but for rounding
    kept = n - jnp.clip(count, 0, n).astype(jnp.int32)
    return ~jax.vmap(masks.top_k, (1 - axis, None), 1 - axis)(values, kept)


def _gate(
    sizes: Sizes,
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    alpha: float,
    ramp: float,
) -> Gate:
    for name, value in (("alpha", alpha), ("ramp", ramp)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: must be from 0 to 1")
    if setting.steps < 1:
        raise ValueError(f"steps={setting.steps}: must be 1 or more")

    def init(key: Key, params: Params) -> tuple[()]:
        del key, params
        return ()

    def apply(
        key: Key, step: Array, g: tuple[()], params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del g
        share, chance = ramped(step, ramp * setting.steps, strength, alpha)
        kernels = masks.pick(params, prunable)

        def leaf(key: Key, kernel: Array) -> Array:
            targeted = _targeted(sizes, kernel, share)
            dropped = targeted & jax.random.bernoulli(key, chance, targeted.shape)
            return jnp.where(_spread(dropped, kernel), jnp.zeros_like(kernel), kernel)

        keys = jax.random.split(key, len(kernels))
        leaves = [leaf(k, kernel) for k, kernel in zip(keys, kernels, strict=True)]
        return masks.put(params, prunable, leaves), jnp.float32(0)

    def harden(g: tuple[()], params: Params) -> Mask:
        del g
        if keep is None:
            return masks.ones(params)
        return masks.select(_shares(sizes, params, prunable), prunable, keep, floor)

    def prune(mask: Mask, params: Params, strength: Array) -> Mask:
        if keep is not None:
            return mask
        bits = [
            ~_spread(_targeted(sizes, kernel, strength), kernel)
            for kernel in masks.pick(params, prunable)
        ]
        return masks.put(mask, prunable, bits)

    return Gate(init, apply, harden, prune=prune, trains_weights=True, most=1.0)


def _shares(sizes: Sizes, params: Params, prunable: Prunable) -> Scores:
    """Of each weight, the share of its competitors that are not above it: from 1/n to 1."""

    def leaf(kernel: Array) -> Array:
        values, axis = sizes(kernel)
        above = jnp.argsort(jnp.argsort(-values, axis), axis)  # of equal ones, the first is highest
        return _spread(1 - above / values.shape[axis], kernel)

    leaves = [leaf(kernel) for kernel in masks.pick(params, prunable)]
    return masks.put(masks.zeros(params), prunable, leaves)
