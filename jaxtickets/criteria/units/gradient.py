"""Gradient: keeps the units whose incoming weights have large gradients."""

import jax.numpy as jnp

from jaxtickets.criteria.base import Evidence, gradient, in_single
from jaxtickets.criteria.units.filters import filters
from jaxtickets.types import Array, Key, Wiring


def score(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """The mean of |dL/dw|, with L the mean loss over the batches; the key feeds dropout."""
    gradients = gradient(key, in_single(evidence))
    return {g.name: jnp.mean(jnp.abs(filters(gradients, g)), 1) for g in wiring}
