"""Gradient: keeps the units whose incoming weights have large gradients."""

import jax.numpy as jnp

from jaxtickets.criteria.base import Evidence, gradient, in_single
from jaxtickets.criteria.units.filters import filters
from jaxtickets.types import Array, Key, Wiring


def score(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """The mean of |dL/dw|, with L the mean loss over the batches; the key feeds dropout.

    >>> from jaxtickets.types import Feed, Split, Units
    >>> wiring = (Units("fc1", 2, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> params = {"fc1": {"kernel": jnp.ones((1, 2))}}
    >>> def loss(params, stats, batch, key):
    ...     return jnp.sum(params["fc1"]["kernel"] * batch.images), (stats, {})
    >>> batches = Split(np.array([[[1.0, -3.0]]]), np.array([[0]]))
    >>> evidence = Evidence(params, params, {}, None, batches, loss)
    >>> score(jax.random.key(0), evidence, wiring)["fc1"].tolist()
    [1.0, 3.0]
    """
    gradients = gradient(key, in_single(evidence))
    return {g.name: jnp.mean(jnp.abs(filters(gradients, g)), 1) for g in wiring}
