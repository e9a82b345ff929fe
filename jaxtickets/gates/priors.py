"""Priors of Bayesian weights, each as its divergence from a Gaussian posterior.

Each weight has the posterior q = N(μ, σ²), and the divergence KL(q ‖ p) from a prior p centred on
zero is summed over weights. A prior centred elsewhere is that of μ minus its centre.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets.types import Array

Prior = Callable[[Array, Array, Array], Array]
"""`prior(mean, log_deviation, noise) -> nats`: the KL divergence of each weight, all of one shape.

The posterior is N(mean, deviation²), and `noise` holds standard normal numbers, from which a prior
without a closed form takes the weights `mean + deviation · noise`.
"""

PI = (0.25, 0.5, 0.75)
SIGMA1 = (1.0, math.exp(-1), math.exp(-2))
SIGMA2 = (math.exp(-6), math.exp(-7), math.exp(-8))
"""The values of `scale_mixture` that Blundell et al., 2015, section 5.1, choose among."""


def gaussian(width: float) -> Prior:
    """The prior N(0, width²): `log(width / σ) + (σ² + μ²) / (2 width²) − 1/2`, in nats.

    Raises:
      ValueError: the width is not above 0.

    >>> log_deviation = np.zeros(2)  # σ = 1
    >>> gaussian(1.0)(np.array([0.0, 2.0]), log_deviation, np.zeros(2)).tolist()
    [0.0, 2.0]
    """
    _check_width("width", width)

    def divergence(mean: Array, log_deviation: Array, noise: Array) -> jax.Array:
        del noise
        squares = jnp.exp(2 * log_deviation) + mean**2
        return math.log(width) - log_deviation + squares / (2 * width**2) - 0.5

    return divergence


def scale_mixture(pi: float, sigma1: float, sigma2: float) -> Prior:
    """The prior `π N(0, σ1²) + (1 − π) N(0, σ2²)`, with the divergence estimated from one sample.

    The estimate `log q(w) − log p(w)` at `w = μ + σ · noise` has the divergence as its expectation,
    and may be negative. Blundell et al., "Weight uncertainty in neural networks", 2015, equation 7;
    `PI`, `SIGMA1` and `SIGMA2` are the values that they choose among.

    Args:
      pi: the share of the first component, between 0 and 1.
      sigma1, sigma2: the widths of the components.

    Raises:
      ValueError: a width is not above 0, or the share is not strictly between 0 and 1.

    >>> prior = scale_mixture(0.5, sigma1=1.0, sigma2=1.0)  # N(0, 1)
    >>> nats = prior(np.array([2.0, 4.0]), np.zeros(2), np.zeros(2))
    >>> nats.round(3).tolist()  # μ² / 2
    [2.0, 8.0]
    """
    _check_width("sigma1", sigma1)
    _check_width("sigma2", sigma2)
    if not 0 < pi < 1:
        raise ValueError(f"pi={pi}: must be above 0 and below 1")

    def divergence(mean: Array, log_deviation: Array, noise: Array) -> jax.Array:
        # the constant log(2 pi) / 2 of both densities cancels
        squares = (mean + jnp.exp(log_deviation) * noise) ** 2
        first = math.log(pi / sigma1) - squares / (2 * sigma1**2)
        second = math.log((1 - pi) / sigma2) - squares / (2 * sigma2**2)
        return -log_deviation - noise**2 / 2 - jnp.logaddexp(first, second)

    return divergence


def _check_width(name: str, width: float) -> None:
    if not width > 0:
        raise ValueError(f"{name}={width}: a prior must have a width above 0")
