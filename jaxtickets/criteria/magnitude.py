"""Magnitude: keep the weights that end large."""

import jax
import jax.numpy as jnp

from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Key, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`|w|`, of `evidence.params`; Han et al., "Learning both weights and connections", 2015."""
    del key
    return jax.tree.map(jnp.abs, evidence.params)
