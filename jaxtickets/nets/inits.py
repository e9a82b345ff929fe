"""Initialisers of weights by name, and the signed constant derived from initial weights."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import initializers

from jaxtickets import masks, roles
from jaxtickets.types import Params

Draw = Callable[..., jax.Array]
"""`draw(key, shape, dtype) -> array`; the key is consumed."""


class Initializer(NamedTuple):
    """The initialiser of a layer.

    Attributes:
      kernel: `draw(key, shape, dtype)` of a kernel `[..., fan_in, fan_out]`.
      bias: the layer's fan-in -> `draw(key, shape, dtype)` of its bias.
    """

    kernel: Draw
    bias: Callable[[int], Draw]


def _zeros(fan_in: int) -> Draw:
    return initializers.zeros


def _uniform(fan_in: int) -> Draw:
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


INITIALIZERS = {
    "glorot_normal": Initializer(initializers.glorot_normal(), _zeros),
    "kaiming_normal": Initializer(initializers.variance_scaling(2, "fan_in", "normal"), _zeros),
    "kaiming_uniform": Initializer(
        initializers.variance_scaling(1 / 3, "fan_in", "uniform"), _uniform
    ),
}
"""The initialisers by name. Fan-in includes the window: `kh * kw * c` for a convolution.

- `glorot_normal`: variance `2 / (fan_in + fan_out)`, a normal truncated at two standard deviations
  and rescaled, as in JAX and TensorFlow; the lottery ticket paper's code used TensorFlow's (Glorot
  and Bengio 2010). PyTorch's `xavier_normal_` has the same variance and is not truncated.
- `kaiming_normal`: variance `2 / fan_in`, a normal that is not truncated, as in PyTorch's
  `kaiming_normal_(nonlinearity='relu')` (He et al. 2015). JAX's `he_normal` is truncated.
- `kaiming_uniform`: `U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))`, also for biases: the default of
  PyTorch's layers (`kaiming_uniform_` with a = sqrt 5).

Biases are zero, except with `kaiming_uniform`.
"""


def initializer(name: str) -> Initializer:
    """The initialiser of a name.

    Raises:
      ValueError: an unknown name.

    >>> kernel = initializer("kaiming_uniform").kernel(jax.random.key(0), (100, 5))
    >>> kernel.shape, bool(abs(kernel).max() <= 100**-0.5)
    ((100, 5), True)
    """
    if name not in INITIALIZERS:
        raise ValueError(f"unknown initializer '{name}': one of {', '.join(INITIALIZERS)}")
    return INITIALIZERS[name]


def signed_constant(params: Params) -> Params:
    """Replaces each kernel by `sign(w) * std(w)`, with its own deviation; other leaves stay.

    The standard deviation is that of the population, about the mean; a weight of exactly zero stays
    zero. Zhou et al. 2019, "Deconstructing lottery tickets".

    >>> params = {"fc1": {"kernel": jnp.array([[1.0, -3.0]]), "bias": jnp.array([5.0, 6.0])}}
    >>> constant = signed_constant(params)["fc1"]
    >>> constant["kernel"].tolist(), constant["bias"].tolist()
    ([[2.0, -2.0]], [5.0, 6.0])
    """

    def leaf(path: str, weights: jax.Array) -> jax.Array:
        if not roles.is_kernel(path, weights):
            return weights
        return jnp.sign(weights) * jnp.std(weights)

    leaves = zip(masks.paths(params), jax.tree.leaves(params), strict=True)
    return jax.tree.unflatten(jax.tree.structure(params), [leaf(*named) for named in leaves])
