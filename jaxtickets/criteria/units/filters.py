"""The incoming weights of units as rows, for criteria of units."""

import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.criteria.base import single
from jaxtickets.types import Array, Params, Units


def filters(params: Params, group: Units) -> Array:
    """float`[units, weights]`: each unit's incoming weights, from all producers, without biases."""
    kernels = single(masks.kernels(params, group.producers))
    return jnp.concatenate([k.reshape(-1, group.size).T for k in kernels], axis=1)
