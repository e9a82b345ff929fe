"""The concrete and the hard concrete distribution of gates, as pure functions.

A concrete gate is `s = σ((logit u + log α) / β)` with u uniform in (0, 1): a bit that is one with
probability σ(log α), made smooth (Maddison et al., "The concrete distribution", 2017). A hard
concrete gate stretches it over (γ, ζ) and clips it, so that it is exactly 0 or 1 with positive
probability:

    z = min(1, max(0, s (ζ - γ) + γ)),   P(z ≠ 0) = σ(log α - β log(-γ / ζ)).

Louizos et al., "Learning sparse neural networks through L0 regularization", 2018, equations 10 to
13. All functions are elementwise in `log_alpha`, whose shape and dtype their results have.
"""

import math

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3
"""The ends of the stretched range, and the temperature."""
MOST = math.log(100)
"""The largest absolute value of a gate's logit."""


def concrete(key: Key, log_alpha: Array, beta: float = BETA) -> jax.Array:
    """Concrete gates in [0, 1], `σ((logit u + log α) / β)`; the key is consumed.

    `P(s > 1/2) = σ(log α)` for every β.

    >>> concrete(jax.random.key(0), np.array([-100.0, 100.0])).round(3).tolist()
    [0.0, 1.0]
    """
    # the logit of a uniform number has the logistic distribution
    noise = jax.random.logistic(key, jnp.shape(log_alpha), jnp.result_type(log_alpha))
    return jax.nn.sigmoid((noise + log_alpha) / beta)


def sample(key: Key, log_alpha: Array) -> jax.Array:
    """Hard concrete gates z in [0, 1]; differentiable in `log_alpha`; the key is consumed.

    >>> sample(jax.random.key(0), np.array([-100.0, 100.0])).tolist()
    [0.0, 1.0]
    """
    return _stretched(concrete(key, log_alpha))


def at_test_time(log_alpha: Array) -> jax.Array:
    """The gates after training: `min(1, max(0, σ(log α) (ζ - γ) + γ))`, equation 13.

    Without noise and, as in the paper, without the temperature. A gate is closed if log α is at
    most `-log 11`.

    >>> at_test_time(np.array([-3.0, 0.0, 3.0])).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    return _stretched(jax.nn.sigmoid(log_alpha))


def expected_l0(log_alpha: Array) -> jax.Array:
    """P(z ≠ 0), whose sum is the expected number of gates that are not closed, equation 12.

    >>> [round(float(p), 3) for p in expected_l0(np.array([-100.0, 0.0, 100.0]))]
    [0.0, 0.832, 1.0]
    """
    return jax.nn.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def initial(key: Key, zero: Array, dropped: float) -> jax.Array:
    """`N(log((1 - p) / p), 0.01)`, with standard deviation 0.01; the key is consumed.

    Args:
      key: for the noise.
      zero: an array whose shape and dtype the result has.
      dropped: p in (0, 1), so that a gate is first open with probability 1 - p, up to the stretch.

    Raises:
      ValueError: p is out of range.

    >>> start = initial(jax.random.key(0), np.zeros(3), dropped=0.2)
    >>> [round(float(p), 1) for p in jax.nn.sigmoid(start)]  # open with probability 0.8
    [0.8, 0.8, 0.8]
    """
    if not 0 < dropped < 1:
        raise ValueError(f"dropped={dropped}: must be above 0 and below 1")
    noise = jax.random.normal(key, jnp.shape(zero), jnp.result_type(zero))
    return math.log((1 - dropped) / dropped) + 0.01 * noise


def _stretched(s: Array) -> jax.Array:
    return jnp.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)
