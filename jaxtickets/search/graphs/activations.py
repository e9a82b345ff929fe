"""The ten activations of weight-agnostic nets.

XLA's sine costs a CPU core about ten times as much as all that a node computes besides, so sine and
cosine have a polynomial of their own; its error is below 4e-6.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.types import Array


class Activation(NamedTuple):
    """An activation.

    Attributes:
      name: the name of it.
      apply: float`[...]` -> float of the same shape.
    """

    name: str
    apply: Callable[[Array], Array]


def _sine(x: Array) -> Array:
    """`sin(pi x)`.

    `x` is reduced to y in [-1/2, 1/2] by a whole number n, whose parity is the sign; the odd
    polynomial of degree 9 in y is fitted to the sine there.
    """
    n = jnp.round(x)
    y = x - n
    z = y * y
    value = 0.08214589
    for coefficient in (-0.59926453, 2.55016404, -5.16771278, 3.14159265):
        value = coefficient + z * value
    odd = n - 2 * jnp.floor(n / 2)
    return (1 - 2 * odd) * y * value


def _cosine(x: Array) -> Array:
    """`cos(pi x)`, as `sin(pi (x + 1/2))`."""
    return _sine(x + 0.5)


def _step(x: Array) -> Array:
    """1 where x is above 0, else 0."""
    return (x > 0).astype(x.dtype)


def _gaussian(x: Array) -> Array:
    """`exp(-x^2 / 2)`."""
    return jnp.exp(-x * x / 2)


ACTIVATIONS = (
    Activation("linear", lambda x: x),
    Activation("step", _step),
    Activation("sine", _sine),
    Activation("gaussian", _gaussian),
    Activation("tanh", jnp.tanh),
    Activation("sigmoid", jax.nn.sigmoid),
    Activation("inverse", jnp.negative),
    Activation("absolute", jnp.abs),
    Activation("relu", jax.nn.relu),
    Activation("cosine", _cosine),
)
"""The activations; genomes hold their places in this tuple. The first is that of all outputs."""
