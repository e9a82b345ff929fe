"""Batch-norm scales: keeps the units with large scales γ."""

import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Array, Key, Wiring


def scale(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """γ with its sign, summed over the group's norms; from an undergraduate thesis, 2020.

    The key is not used.

    Raises:
      ValueError: a group has no batch norm.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("conv1", 2, ("conv1",), norms=("bn1",), consumers=(Feed("out", 1),)),)
    >>> params = {"bn1": {"scale": np.array([1.0, -3.0])}}
    >>> evidence = Evidence(params, params, {}, None, None, None)
    >>> scale(jax.random.key(0), evidence, wiring)["conv1"].tolist()
    [1.0, -3.0]
    """
    del key
    return {name: jnp.sum(gammas, 0) for name, gammas in _gammas(evidence, wiring).items()}


def absolute(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """`Σ |γ|` over the group's norms, the unit's share of the penalty on scales.

    Liu et al., "Learning efficient convolutional networks through network slimming", 2017. The key
    is not used.

    Raises:
      ValueError: a group has no batch norm.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("conv1", 2, ("conv1",), norms=("bn1",), consumers=(Feed("out", 1),)),)
    >>> params = {"bn1": {"scale": np.array([1.0, -3.0])}}
    >>> evidence = Evidence(params, params, {}, None, None, None)
    >>> absolute(jax.random.key(0), evidence, wiring)["conv1"].tolist()
    [1.0, 3.0]
    """
    del key
    return {name: jnp.sum(jnp.abs(gammas), 0) for name, gammas in _gammas(evidence, wiring).items()}


def _gammas(evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """Group -> float`[norms, units]`; raises ValueError if a group has no batch norm."""
    found = {}
    for group in wiring:
        if not group.norms:
            raise ValueError(f"{group.name} has no batch norm to be scored by")
        paths = tuple(f"{norm}/scale" for norm in group.norms)
        found[group.name] = jnp.stack(masks.pick(evidence.params, paths))
    return found
