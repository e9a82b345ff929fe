"""Sparse variational dropout: Gaussian weights whose noise grows until some are noise alone.

The weights are N(w, σ²), and w and log σ² are trained on the variational bound with a log-uniform
prior. With `α = σ² / w²`, N training examples and the strength 1, the penalty is

    (1 / N) Σ KL(α),   KL(α) ≈ k1 - k1 sigmoid(k2 + k3 log α) + ½ log(1 + 1 / α),

and a weight is removed where log α ≥ 3, with a dropout rate above 0.95. Molchanov, Ashukha and
Vetrov, "Variational dropout sparsifies deep neural networks", 2017, equations 9 to 14, with the
published settings: Adam, batches of 100, 200 epochs.
"""

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.gates.base import Gate, Setting, equal_scores
from jaxtickets.nets import gaussian
from jaxtickets.types import Array, Gaussian, Keep, Key, Mask, Params, Prunable, Scores

THRESHOLD = 3.0
"""The log alpha from which on a weight is noise."""
LIMIT = 8.0
"""log alpha is clipped to plus and minus this number in the divergence."""
BEGIN = -10.0
"""log σ² at first."""
SILENT, WHOLE = 5 / 200, 20 / 200
"""The shares of training at which the divergence starts to count, and at which it counts fully."""


def gate(
    prunable: Prunable, keep: Keep | None, floor: Keep, setting: Setting, begin: float = BEGIN
) -> Gate:
    """Trains log σ² with the weights, whose means are w, or 0 where log α is at least 3.

    The weights are a `Gaussian`, sampled where the net uses them, see `nets.gaussian`. Leaves that
    are not in `prunable` have no variance. After training, the kept weights are w.

    Deviations: the variance in a product is σ², as in the paper's equations; the authors' code uses
    `exp(clipped log α) w²`. Only the divergence is clipped here. The times of the warm-up are the
    authors' epochs 5 and 20 of 200, as shares of the training (see `warm_up`).

    Args:
      prunable: the leaves whose weights are random, and that are masked.
      keep, floor: how many weights the hard mask keeps, those with the lowest log α, see
        `masks.select`; `keep` None: those with log α < 3.
      setting: the number of training steps and of examples N.
      begin: log σ² of every weight at first.

    The strength multiplies the divergence, in nats over all N examples; 1 is the paper's bound.

    Raises:
      ValueError: there is no training step or no example.

    >>> made = gate(("w",), None, 0, Setting(steps=10, examples=100))
    >>> params, log_variance = {"w": jnp.array([0.01, 1.0])}, {"w": jnp.array([-4.0, -4.0])}
    >>> made.harden(log_variance, params)["w"].tolist()  # log α = -4 + 9.2 and -4
    [False, True]
    >>> used, _ = made.apply(jax.random.key(0), 0, log_variance, params, 1.0)
    >>> used.mean["w"].tolist()
    [0.0, 1.0]
    """
    check(setting)

    def apply(
        key: Key, step: Array, log_variance: Scores, params: Params, strength: Array
    ) -> tuple[Gaussian, Array]:
        del key
        weights, noise = masks.pick(params, prunable), masks.pick(log_variance, prunable)
        alphas = [log_alpha(w, v) for w, v in zip(weights, noise, strict=True)]
        heard = [
            jnp.where(a < THRESHOLD, w, jnp.zeros_like(w))
            for w, a in zip(weights, alphas, strict=True)
        ]
        variances = [jnp.exp(v).astype(w.dtype) for w, v in zip(weights, noise, strict=True)]
        effective = Gaussian(
            masks.put(params, prunable, heard),
            masks.put(masks.zeros(params), prunable, variances),
        )
        nats = sum((jnp.sum(divergence(a)) for a in alphas), jnp.float32(0))
        return effective, strength * warm_up(step, setting.steps) * nats / setting.examples

    def harden(log_variance: Scores, params: Params) -> Mask:
        pairs = zip(masks.pick(params, prunable), masks.pick(log_variance, prunable), strict=True)
        alphas = [log_alpha(w, v) for w, v in pairs]
        if keep is None:
            return masks.put(masks.ones(params), prunable, [a < THRESHOLD for a in alphas])
        scores = masks.put(masks.zeros(params), prunable, [-a for a in alphas])
        return masks.select(scores, prunable, keep, floor)

    return Gate(
        equal_scores(prunable, begin),
        apply,
        harden,
        trains_weights=True,
        extra_passes=gaussian.PASSES,
    )


def check(setting: Setting) -> None:
    """Raises ValueError if there is no training step or no example.

    >>> check(Setting(steps=10, examples=100))
    >>> check(Setting(steps=0, examples=100))
    Traceback (most recent call last):
    ValueError: steps=0: must be 1 or more
    """
    for name, number in (("steps", setting.steps), ("examples", setting.examples)):
        if number < 1:
            raise ValueError(f"{name}={number}: must be 1 or more")


def log_alpha(mean: Array, log_variance: Array) -> jax.Array:
    """`log(σ² / w²)`, elementwise; finite for w = 0, where its slope in w is 0.

    >>> log_alpha(np.array([1.0, -1.0]), np.array([-10.0, 3.0])).tolist()
    [-10.0, 3.0]
    """
    least = jnp.finfo(jnp.result_type(mean)).tiny
    return log_variance - jnp.log(jnp.maximum(jnp.square(mean), least))


def divergence(log_alpha: Array) -> jax.Array:
    """KL(N(w, α w²) || log-uniform), elementwise, in nats, up to a constant; 0 at large α.

    Equation 14, `k1 - k1 sigmoid(k2 + k3 log α) + ½ log(1 + 1 / α)`, with log α clipped to ±8. The
    approximation's largest error is 0.0094, near log α = -3.5.

    >>> [round(float(nats), 2) for nats in divergence(np.array([-8.0, 0.0, 8.0]))]
    [4.64, 0.43, 0.0]
    """
    k1, k2, k3 = 0.63576, 1.87320, 1.48695
    clipped = jnp.clip(log_alpha, -LIMIT, LIMIT)
    return k1 - k1 * jax.nn.sigmoid(k2 + k3 * clipped) + jnp.log1p(jnp.exp(-clipped)) / 2


def warm_up(step: Array, steps: int) -> jax.Array:
    """The weight of the divergence: 0 to `SILENT · steps`, then linear, 1 from `WHOLE · steps`.

    Without it, weights turn into noise before they have learnt anything.

    >>> [round(float(warm_up(step, 200)), 3) for step in (5, 10, 20, 200)]
    [0.0, 0.333, 1.0, 1.0]
    """
    share = step / steps
    return jnp.clip((share - SILENT) / (WHOLE - SILENT), 0.0, 1.0)
