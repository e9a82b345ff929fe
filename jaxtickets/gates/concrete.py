"""Concrete ticket search (CTS): concrete gates over fixed weights that imitate the dense net.

Each weight is used as `w · z`, with z a concrete gate of its own logit s (temperature 2/3), drawn
anew in every step. The logits are trained to make the outputs p of the gated net those q of the
dense net with the same weights, `Σ p log(p / q)`, the reverse Kullback-Leibler divergence, while

    density = mean σ(s)

is pushed down to that of `keep`. Its gradient is multiplied by a moving average of

    ‖∇ divergence‖ / ‖∇ density‖, or of zero once the density is below its target,

so that there is no weight of the penalty to tune. Arora and Teuscher, "Winning the lottery by
preserving network training dynamics with concrete ticket search", 2025, CTS-KL with GradBalance.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks, optimizers
from jaxtickets.gates import hard_concrete
from jaxtickets.gates.base import Gate, Objective, Scale, unscaled
from jaxtickets.losses import Outputs
from jaxtickets.types import (
    Array,
    Keep,
    Key,
    Loss,
    Mask,
    Params,
    Prunable,
    Scores,
    Split,
    Stats,
)

RATE, DROP_AT, AVERAGE = 0.1, 0.88, 0.01
"""Adam's learning rate, the share of training at which it is divided by ten, and the share of the
new value in the moving average of the multiplier."""


def gate(
    prunable: Prunable,
    keep: Keep,
    scale: Scale = unscaled,
    floor: Keep = 0,
    steps: int = 0,
    rate: float = RATE,
) -> Gate:
    """Trains the logits s of concrete gates; the hard mask keeps the highest s, exactly `keep`.

    The logits start at `logit(density)`: that of each leaf if `keep` is a count for each leaf, and
    else that of all. They train with an Adam of their own, whatever optimiser is asked for, and
    with the divergence as the loss, for which `gates.loss` needs `outputs`. The dense net
    is in training mode too, with the same batch and dropout: another forward pass of each example.

    The multiplier lags behind the density by about a hundred steps, in which Adam moves a logit by
    up to ten: the density first falls below its target, and a search takes thousands of steps.

    Deviations: the paper ranks all leaves together, which is what a total does. The multiplier
    starts at zero, which is this code's choice.

    Args:
      prunable: the leaves that are masked.
      keep, floor: how many weights the hard mask keeps, see `masks.select`; may be traced.
      scale: not used: as in the paper, weights are not rescaled. They are meant to do what they do
        in the dense net, and gates of larger weights have noise that training avoids by closing
        all of them.
      steps: the number of training steps, 1 or more.
      rate: Adam's learning rate; the paper has that of the training, 0.1.

    Raises:
      ValueError: `steps` is below 1.

    >>> made = gate(("w",), keep=1, steps=100)
    >>> params = {"w": jnp.array([3.0, 4.0, 5.0, 6.0])}
    >>> chances = jax.nn.sigmoid(made.init(jax.random.key(0), params)["w"])  # the density
    >>> [round(float(x), 3) for x in chances]
    [0.25, 0.25, 0.25, 0.25]
    >>> made.harden({"w": jnp.array([0.0, 2.0, 1.0, -1.0])}, params)["w"].tolist()
    [False, True, False, False]
    """
    del scale
    if steps < 1:
        raise ValueError(f"steps={steps}: must be the number of training steps, 1 or more")

    def init(key: Key, params: Params) -> Scores:
        del key
        zero = masks.zeros(params)
        pairs = zip(prunable, masks.pick(zero, prunable), strict=True)
        return masks.put(zero, prunable, [leaf + first(path, params) for path, leaf in pairs])

    def first(path: str, params: Params) -> jax.Array:
        """`logit(density)`, at least half a weight away from none and from all."""
        sizes = _sizes(params, prunable)
        size = sizes[path] if isinstance(keep, Mapping) else sum(sizes.values())
        kept = jnp.asarray(keep[path] if isinstance(keep, Mapping) else keep, jnp.float32)
        kept = jnp.clip(kept, 0.5, size - 0.5)
        return jnp.log(kept) - jnp.log(size - kept)

    def apply(
        key: Key, step: Array, logits: Scores, params: Params, strength: Array
    ) -> tuple[Params, Array]:
        del step, strength
        weights, leaves = masks.pick(params, prunable), masks.pick(logits, prunable)
        keys = jax.random.split(key, len(leaves))
        soft = [hard_concrete.concrete(k, s) for k, s in zip(keys, leaves, strict=True)]
        used = [(w * z).astype(w.dtype) for w, z in zip(weights, soft, strict=True)]
        return masks.put(params, prunable, used), jnp.float32(0)

    def harden(logits: Scores, params: Params) -> Mask:
        del params
        return masks.select(logits, prunable, keep, floor)

    def optimizer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
        del inner
        shape = optimizers.decay_shape("steps", steps, drops=(DROP_AT,))
        return balanced(optimizers.optimizer("adam", rate, shape), prunable, keep)

    return Gate(init, apply, harden, optimizer=optimizer, objective=_imitation, extra_passes=1)


def reverse_divergence(logits: Array, dense: Array) -> jax.Array:
    """The mean over examples of `Σ p log(p / q)`, in nats: p of `logits[n, classes]`, q of `dense`.

    It asks p to be small wherever q is.

    >>> even, sure = np.array([[0.0, 0.0]]), np.array([[0.0, -100.0]])
    >>> [round(float(reverse_divergence(*pair)), 3) for pair in ((even, even), (sure, even))]
    [0.0, 0.693]
    """
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(dense)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1))


def _imitation(of_weights: Loss, outputs: Outputs | None) -> Objective:
    """The divergence of the gated net from the dense one; the labels only serve the measures."""
    del of_weights
    if outputs is None:
        raise ValueError("concrete gates imitate the dense net: their loss needs its `outputs`")

    def objective(
        effective: Params, params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        logits, seen = outputs(effective, stats, batch, key)
        dense, _ = outputs(params, stats, batch, key)
        return reverse_divergence(logits, dense), seen

    return objective


class Balanced(NamedTuple):
    """The state of `balanced`.

    Attributes:
      inner: the state of the inner optimiser.
      multiplier: float scalar, by which the density's gradient is multiplied.
    """

    inner: optax.OptState
    multiplier: Array


def balanced(
    inner: optax.GradientTransformation, prunable: Prunable, keep: Keep
) -> optax.GradientTransformationExtraArgs:
    """`inner`, of logits, with the gradient of their density added to that of the loss.

    With g the gradient of the loss and d that of `mean σ(s)` over all leaves `prunable`, the
    multiplier m becomes `0.99 m + 0.01 ‖g‖ / ‖d‖`, or `0.99 m` once the density is not above its
    target, and `inner` receives `g + m d`.

    Args:
      inner: any optax optimiser.
      prunable: the leaves that hold logits.
      keep: the number of weights that are kept at the target, in all or in each leaf.

    >>> optimizer = balanced(optax.sgd(1.0), ("w",), keep=1)
    >>> logits, gradient = {"w": jnp.zeros(4)}, {"w": jnp.ones(4)}  # a density of 1/2, of 1/4
    >>> _, state = optimizer.update(gradient, optimizer.init(logits), logits)
    >>> round(float(state.multiplier), 3)  # 1 % of 2 / (1/8)
    0.16
    """
    inner = optax.with_extra_args_support(inner)
    kept = sum(keep[path] for path in prunable) if isinstance(keep, Mapping) else keep

    def init(params: Scores) -> Balanced:
        kind = jnp.result_type(*masks.pick(params, prunable))
        return Balanced(inner.init(params), jnp.zeros((), kind))

    def update(
        gradient: Scores, state: Balanced, params: Scores | None = None, **extra: Any
    ) -> tuple[Scores, Balanced]:
        if params is None:
            raise ValueError("the optimiser of concrete gates needs the parameters")
        size = sum(_sizes(params, prunable).values())
        chance = [jax.nn.sigmoid(s) for s in masks.pick(params, prunable)]
        slopes = [p * (1 - p) / size for p in chance]
        tasks = masks.pick(gradient, prunable)
        steepness = optax.tree.norm(slopes)
        ratio = optax.tree.norm(tasks) / jnp.where(steepness > 0, steepness, 1)
        above = sum(jnp.sum(p) for p in chance) > kept
        target = jnp.where(above & (steepness > 0), ratio, jnp.zeros_like(ratio))
        now = ((1 - AVERAGE) * state.multiplier + AVERAGE * target).astype(state.multiplier.dtype)
        both = [g + now * d for g, d in zip(tasks, slopes, strict=True)]
        updates, after = inner.update(
            masks.put(gradient, prunable, both), state.inner, params, **extra
        )
        return updates, Balanced(after, now)

    return optax.GradientTransformationExtraArgs(init, update)


def _sizes(params: Params, prunable: Prunable) -> dict[str, int]:
    return {path: math.prod(shape) for path, shape in masks.shapes(params, prunable).items()}
