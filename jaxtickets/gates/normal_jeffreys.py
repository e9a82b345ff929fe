"""Bayesian compression with the group normal-Jeffreys prior (BC-GNJ): noise for whole groups.

Each group i of weights (see `groups`) has a scale z, with an improper prior on it, and

    p(z_i) ∝ 1 / |z_i|,              p(w_ij | z_i) = N(0, z_i²),
    q(z_i) = N(m_i, s_i²),           q(w_ij | z_i) = N(z_i μ_ij, z_i² σ_ij²).

With `α_i = s_i² / m_i²`, the divergence of sparse variational dropout and N training examples, the
penalty at strength 1 is

    (1 / N) (Σ_i KL(α_i) + Σ_ij ½ (σ_ij² + μ_ij² - 1 - log σ_ij²)),

and a group is removed where log α_i reaches a threshold. Louizos, Ullrich and Welling, "Bayesian
compression for deep learning", 2017, section 4.1, equations 6 to 8.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.gates import groups
from jaxtickets.gates.base import Gate, Setting
from jaxtickets.gates.variational_dropout import check, divergence, log_alpha, warm_up
from jaxtickets.nets import gaussian
from jaxtickets.types import Array, Gaussian, Keep, Key, Mask, Params, Prunable

THRESHOLD = -3.0
"""The log alpha from which on a group is removed."""
BEGIN = -9.0
"""log s² and log σ² at first."""


class Posterior(NamedTuple):
    """What the gate trains beside the means μ, which are the net's weights.

    Attributes:
      mean: path -> float`[groups]`, m.
      log_scale: path -> float`[groups]`, log s².
      log_variance: path -> float, shaped like the kernel, log σ².
    """

    mean: dict[str, Array]
    log_scale: dict[str, Array]
    log_variance: dict[str, Array]


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    threshold: float = THRESHOLD,
) -> Gate:
    """Trains m, log s² and log σ² with the weights, which are used as `N(z μ, z² σ²)`.

    The weights are a `Gaussian`, sampled where the net uses them, see `nets.gaussian`. After
    training, they are `m μ`. A filter's bias is multiplied by z or m, too, and masked with the
    filter.

    Deviations: z is drawn once for a batch, not once for each example. Biases have no variance and
    no prior. The divergence has the warm-up of sparse variational dropout; the authors' example has
    none, and clips σ² of the first layer to at most 0.04. Their thresholds are set by hand for each
    layer, from the histogram of log α; -2.8, -3 and -5 in their example. Here one is for all. Their
    code's divergence of the weights of convolutions takes log σ² for log σ, unlike that of dense
    layers. They also drop the weights that lead to a removed input of the next layer; the mask here
    keeps them, and `compress` finds such units.

    log s² and log σ² start far from their ends: with the rate 0.001, Adam needs some 10,000 steps.

    Args:
      prunable: the kernels that have groups.
      keep, floor: how many weights the hard mask keeps, in whole groups with the lowest log α, see
        `groups.select`; `keep` None: the groups with log α below `threshold`.
      setting: the number of training steps and of examples N.
      threshold: see above.

    The strength multiplies the divergence, in nats over all N examples; 1 is the paper's bound.

    Raises:
      ValueError: there is no training step or no example; or, at the start, a leaf has no groups.

    >>> made = gate(("w",), None, 0, Setting(steps=10, examples=100))
    >>> params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    >>> noisy, quiet = 0.0, -9.0  # log s²: of two inputs, the first is noise
    >>> g = Posterior({"w": jnp.array([0.5, 2.0])}, {"w": jnp.array([noisy, quiet])}, {})
    >>> made.harden(g, params)["w"].tolist()
    [[False, False], [True, True]]
    >>> made.weights(g, params)["w"].tolist()
    [[0.5, 1.0], [6.0, 8.0]]
    """
    check(setting)

    def init(key: Key, params: Params) -> Posterior:
        leaves = groups.kernels(masks.zeros(params), prunable)
        keys = jax.random.split(key, max(1, len(leaves)))
        means, scales, variances = {}, {}, {}
        for path, leaf, leaf_key in zip(prunable, leaves, keys, strict=False):
            each = jnp.zeros(leaf.shape[groups.axis(leaf)], leaf.dtype)
            of_mean, of_scale, of_variance = jax.random.split(leaf_key, 3)
            means[path] = 1 + _jitter(of_mean, each)
            scales[path] = BEGIN + _jitter(of_scale, each)
            variances[path] = BEGIN + _jitter(of_variance, leaf)
        return Posterior(means, scales, variances)

    def apply(
        key: Key, step: Array, g: Posterior, params: Params, strength: Array
    ) -> tuple[Gaussian, Array]:
        keys = jax.random.split(key, max(1, len(prunable)))
        z = []
        for path, leaf_key in zip(prunable, keys, strict=False):
            noise = jax.random.normal(leaf_key, g.mean[path].shape, g.mean[path].dtype)
            z.append(g.mean[path] + jnp.exp(g.log_scale[path] / 2) * noise)
        scale = groups.spread(params, prunable, z, jnp.float32(1))
        spread = [
            jnp.square(z_of) * jnp.exp(g.log_variance[path])
            for path, z_of in zip(prunable, masks.pick(scale, prunable), strict=True)
        ]
        variance = masks.put(masks.zeros(params), prunable, spread)
        effective = Gaussian(_scaled(scale, params), variance)
        nats = jnp.float32(0)
        for path, mean in zip(prunable, masks.pick(params, prunable), strict=True):
            nats += jnp.sum(divergence(log_alpha(g.mean[path], g.log_scale[path])))
            nats += jnp.sum(weight_divergence(mean, g.log_variance[path]))
        return effective, strength * warm_up(step, setting.steps) * nats / setting.examples

    def weights(g: Posterior, params: Params) -> Params:
        means = [g.mean[path] for path in prunable]
        return _scaled(groups.spread(params, prunable, means, jnp.float32(1)), params)

    def harden(g: Posterior, params: Params) -> Mask:
        alphas = [log_alpha(g.mean[path], g.log_scale[path]) for path in prunable]
        if keep is None:
            heard = [a < threshold for a in alphas]
            return groups.spread(params, prunable, heard, jnp.bool_(True))
        return groups.select(params, prunable, [-a for a in alphas], keep, floor)

    return Gate(
        init,
        apply,
        harden,
        weights=weights,
        trains_weights=True,
        extra_passes=gaussian.PASSES,
    )


def weight_divergence(mean: Array, log_variance: Array) -> jax.Array:
    """`KL(N(μ, σ²) || N(0, 1)) = ½ (σ² + μ² - 1 - log σ²)`, elementwise, in nats.

    It is that of `N(z μ, z² σ²)` from `N(0, z²)` for every z, equation 8.

    >>> weight_divergence(np.array([0.0, 2.0]), np.zeros(2)).tolist()
    [0.0, 2.0]
    """
    return (jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance) / 2


class FixedPoint(NamedTuple):
    """Signed numbers that are multiples of `2^-fraction`.

    Attributes:
      fraction: the number of binary digits after the point; negative if steps are larger than 1.
      bits: the number of bits of a weight, with its sign; 0 if there is no weight.
    """

    fraction: int
    bits: int


def precision(g: Posterior, params: Params, mask: Mask) -> dict[str, FixedPoint]:
    """Path -> the fixed-point form that the kept weights of a kernel need, computed on the host.

    The posterior of a weight has the mean `m μ` and the variance `m² σ² + s² (μ² + σ²)`. The step
    is the largest power of two that is not above the geometric mean of the kept weights' variances,
    as in the authors' code; the largest `|m μ|` fits. Section 4.3 of the paper has floating-point
    numbers, whose unit round-off is the mean variance.

    >>> params, mask = {"w": np.array([[3.0], [5.0]], "f")}, {"w": np.array([[True], [False]])}
    >>> log_variance = {"w": np.full((2, 1), np.log(1 / 16), "f")}  # a deviation of 1/4
    >>> g = Posterior({"w": np.ones(2, "f")}, {"w": np.full(2, -50, "f")}, log_variance)
    >>> precision(g, params, mask)["w"]  # 3 in steps of 1/16, and a sign
    FixedPoint(fraction=4, bits=7)
    """
    found = {}
    for path in g.mean:
        (kernel,), (kept,) = masks.pick(params, (path,)), masks.pick(mask, (path,))
        m, s = groups.along(g.mean[path], kernel), groups.along(g.log_scale[path], kernel)
        noise = jnp.exp(g.log_variance[path])
        variance = m**2 * noise + jnp.exp(s) * (kernel**2 + noise)
        means, spread = (np.asarray(x)[np.asarray(kept)] for x in (m * kernel, variance))
        if not means.size:
            found[path] = FixedPoint(0, 0)
            continue
        fraction = math.ceil(-np.log2(spread).mean())
        steps = round(float(np.abs(means).max()) * 2.0**fraction)
        found[path] = FixedPoint(fraction, 1 + steps.bit_length())
    return found


def _scaled(scale: Params, params: Params) -> Params:
    return jax.tree.map(lambda z, w: (z * w).astype(w.dtype), scale, params)


def _jitter(key: Key, like: Array) -> jax.Array:
    """Noise of standard deviation 0.01, as in the authors' code; the key is consumed."""
    return 0.01 * jax.random.normal(key, like.shape, like.dtype)
