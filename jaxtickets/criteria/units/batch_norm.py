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
    scores = {}
    for group in wiring:
        if not group.norms:
            raise ValueError(f"{group.name} has no batch norm to be scored by")
        scales = masks.pick(evidence.params, tuple(f"{norm}/scale" for norm in group.norms))
        scores[group.name] = jnp.sum(jnp.stack(scales), 0)
    return scores


def absolute(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """|γ|; Liu et al., "Learning efficient convolutional networks through network slimming", 2017.

    Raises:
      ValueError: a group has no batch norm.
    """
    return {name: jnp.abs(gamma) for name, gamma in scale(key, evidence, wiring).items()}
