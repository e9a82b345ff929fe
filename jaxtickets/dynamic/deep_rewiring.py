"""DeepR, deep rewiring: weights that cross zero become dormant, and random ones wake up.

Each position has a sign s that never changes, and each kept weight is w = s θ with θ > 0. A step is
the inner optimiser's, then noise and an L1 penalty on θ,

    θ <- θ + noise · ε - decay,  ε ~ N(0, 1),

and what has θ < 0 then is dormant, at zero. As many dormant weights, chosen at random in the same
leaf, wake up at θ = 1e-12, so that counts stay. Bellec et al., "Deep rewiring: training very sparse
deep networks", 2018, algorithm 1. There, noise is `sqrt(2 η T)` and the decay `η α`, at the
learning rate η and the temperature T; in its code, they are `η · 1e-5` both.

With `soft`, dormant weights are not interchangeable: each has its θ < 0, which walks at random by
the same noise, is kept above `lowest`, and wakes up when it crosses zero (algorithm 2). The number
of kept weights is then not fixed, and is what noise and decay make it.

Deviations: the inner optimiser may have momentum, which a weight that falls dormant loses. The
paper's code draws the first positions with replacement and so starts below its target.
"""

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks
from jaxtickets.dynamic.base import View, sparse
from jaxtickets.types import Array, Key, Mask, Params, Prunable, PyTree

NOISE, DECAY, AWAKE = 1e-5, 1e-5, 1e-12


def deep_rewiring(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    signs: Params,
    key: Key,
    noise: float = NOISE,
    decay: float = DECAY,
) -> optax.GradientTransformationExtraArgs:
    """DeepR's sparse optimiser, with a fixed number of kept weights in each leaf.

    Args:
      inner: the optimiser of the training steps; its moments must have one number for each weight.
      mask: bool, like the parameters: the initial mask.
      prunable: the leaves that are rewired.
      signs: like the parameters; the sign of each position is that of its value there, such as
        the initial parameters. A kept weight whose sign differs at first falls dormant in the
        first step.
      key: for noise and for what wakes up.
      noise: the standard deviation of the noise, such as `sqrt(2 · rate · temperature)`.
      decay: the step of the L1 penalty, such as `rate · 1e-5`.

    Raises:
      ValueError: `noise` or `decay` is negative.

    >>> params, zero, key = {"w": jnp.array([4.0, 0.5])}, {"w": jnp.zeros(2)}, jax.random.key(0)
    >>> mask = {"w": np.ones(2, bool)}
    >>> optimizer = deep_rewiring(optax.sgd(0.1), mask, ("w",), params, key, noise=0.0, decay=1.0)
    >>> updates, state = optimizer.update(zero, optimizer.init(params), params)
    >>> after = optax.apply_updates(params, updates)["w"]  # the second falls dormant and wakes up
    >>> state.mask["w"].tolist(), [round(float(w), 3) for w in after]
    ([True, True], [3.0, 0.0])
    """
    _check(noise, decay)

    def after(view: View, params: Params) -> tuple[Params, Mask, PyTree]:
        key, new_params, new_mask = view.random(), [], []
        leaves = zip(
            *(masks.pick(tree, prunable) for tree in (params, view.mask, signs)), strict=True
        )
        for i, (w, keep, sign) in enumerate(leaves):
            noise_key, wake_key = jax.random.split(jax.random.fold_in(key, i))
            s = _sign(sign, w)
            theta = s * w + noise * jax.random.normal(noise_key, w.shape, w.dtype) - decay
            stay = keep & (theta > 0)
            chance = jnp.where(stay, -jnp.inf, jax.random.uniform(wake_key, w.shape))
            missing = jnp.sum(keep, dtype=jnp.int32) - jnp.sum(stay, dtype=jnp.int32)
            awake = masks.top_k(jnp.ravel(chance), missing).reshape(w.shape)
            new_params.append(s * jnp.where(stay, theta, jnp.where(awake, AWAKE, 0)))
            new_mask.append(stay | awake)
        return (
            masks.put(params, prunable, new_params),
            masks.put(view.mask, prunable, new_mask),
            view.method,
        )

    return sparse(inner, mask, after=after, key=key)


def soft_deep_rewiring(
    inner: optax.GradientTransformation,
    mask: Mask,
    prunable: Prunable,
    signs: Params,
    key: Key,
    noise: float = NOISE,
    decay: float = DECAY,
    lowest: float = -1e-3,
) -> optax.GradientTransformationExtraArgs:
    """The soft variant: dormant weights walk, and the number of kept weights isn't fixed.

    Args:
      inner, mask, prunable, signs, key, noise, decay: see `deep_rewiring`.
      lowest: the least θ of a dormant weight, below 0. For a share p of kept weights it is
        `-(1 - p) / (p β)` with `β = penalty / temperature`.

    Raises:
      ValueError: `noise` or `decay` is negative, or `lowest` is not.

    >>> params, zero, key = {"w": jnp.array([4.0, 0.5])}, {"w": jnp.zeros(2)}, jax.random.key(0)
    >>> mask = {"w": np.ones(2, bool)}
    >>> optimizer = soft_deep_rewiring(optax.sgd(0.1), mask, ("w",), params, key, 0.0, decay=1.0)
    >>> updates, state = optimizer.update(zero, optimizer.init(params), params)
    >>> after = optax.apply_updates(params, updates)["w"]  # the second falls dormant
    >>> state.mask["w"].tolist(), [round(float(w), 3) for w in after]
    ([True, False], [3.0, 0.0])
    """
    _check(noise, decay)
    if not lowest < 0:
        raise ValueError(f"lowest={lowest}: must be below 0")

    def after(view: View, params: Params) -> tuple[Params, Mask, PyTree]:
        key, new_params, new_mask, walks = view.random(), [], [], []
        leaves = zip(
            *(masks.pick(tree, prunable) for tree in (params, view.mask, signs, view.method)),
            strict=True,
        )
        for i, (w, keep, sign, dormant) in enumerate(leaves):
            s = _sign(sign, w)
            drawn = noise * jax.random.normal(jax.random.fold_in(key, i), w.shape, w.dtype)
            theta = jnp.where(keep, s * w - decay, dormant) + drawn
            active = theta > 0
            walks.append(jnp.where(active, 0, jnp.maximum(theta, lowest)))
            new_params.append(jnp.where(active, s * theta, 0))
            new_mask.append(active)
        return (
            masks.put(params, prunable, new_params),
            masks.put(view.mask, prunable, new_mask),
            masks.put(view.method, prunable, walks),
        )

    first_key, key = jax.random.split(key)
    first = jax.random.split(first_key, len(prunable))
    walks = [
        jnp.where(keep, 0, lowest * jax.random.uniform(k, jnp.shape(keep)))
        for k, keep in zip(first, masks.pick(mask, prunable), strict=True)
    ]
    zero = jax.tree.map(lambda keep: jnp.zeros(jnp.shape(keep)), mask)
    walk = masks.put(zero, prunable, walks)
    return sparse(inner, mask, after=after, method=walk, key=key)


def _sign(sign: Array, like: Array) -> Array:
    return jnp.where(sign < 0, -1, 1).astype(like.dtype)


def _check(noise: float, decay: float) -> None:
    for name, value in (("noise", noise), ("decay", decay)):
        if not isinstance(value, jax.core.Tracer) and not value >= 0:
            raise ValueError(f"{name}={value}: must be 0 or more")
