"""Batch-norm scales: keep the units that batch norm lets through."""

import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Array, Key, Wiring


def scale(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """γ, the sum over the group's norms, with its sign; an undergraduate thesis, 2020.

    Raises:
      ValueError: a group has no batch norm.
    """
    del key
    return {name: jnp.sum(gammas, 0) for name, gammas in _gammas(evidence, wiring).items()}


def absolute(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """`Σ |γ|` over the group's norms, what the penalty on scales has of it.

    Liu et al., "Learning efficient convolutional networks through network slimming", 2017.

    Raises:
      ValueError: a group has no batch norm.
    """
    del key
    return {name: jnp.sum(jnp.abs(gammas), 0) for name, gammas in _gammas(evidence, wiring).items()}


def _gammas(evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """Group -> `[norms, units]`; raises ValueError where a group has no norm."""
    found = {}
    for group in wiring:
        if not group.norms:
            raise ValueError(f"{group.name} has no batch norm to be scored by")
        paths = tuple(f"{norm}/scale" for norm in group.norms)
        found[group.name] = jnp.stack(masks.pick(evidence.params, paths))
    return found
