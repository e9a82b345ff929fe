"""Norms of filters: keeps the units whose incoming weights are large."""

import jax.numpy as jnp

from jaxtickets.criteria.base import Evidence
from jaxtickets.criteria.units.filters import filters
from jaxtickets.types import Array, Key, Wiring


def mean_abs(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """The mean of |w|, which is comparable between layers of different widths.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 2, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> params = {"fc1": {"kernel": np.array([[3.0, 1.0], [-4.0, 0.0]])}}
    >>> evidence = Evidence(params, params, {}, None, None, None)
    >>> mean_abs(jax.random.key(0), evidence, wiring)["fc1"].tolist()
    [3.5, 0.5]
    """
    del key
    return {g.name: jnp.mean(jnp.abs(filters(evidence.params, g)), 1) for g in wiring}


def l1(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """`Σ |w|`; Li et al., "Pruning filters for efficient ConvNets", 2017.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 2, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> params = {"fc1": {"kernel": np.array([[3.0, 1.0], [-4.0, 0.0]])}}
    >>> evidence = Evidence(params, params, {}, None, None, None)
    >>> l1(jax.random.key(0), evidence, wiring)["fc1"].tolist()
    [7.0, 1.0]
    """
    del key
    return {g.name: jnp.sum(jnp.abs(filters(evidence.params, g)), 1) for g in wiring}


def l2(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """`(Σ w²)^½`; He et al., "Soft filter pruning", 2018.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 2, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> params = {"fc1": {"kernel": np.array([[3.0, 1.0], [-4.0, 0.0]])}}
    >>> evidence = Evidence(params, params, {}, None, None, None)
    >>> l2(jax.random.key(0), evidence, wiring)["fc1"].tolist()
    [5.0, 1.0]
    """
    del key
    return {g.name: jnp.linalg.norm(filters(evidence.params, g), axis=1) for g in wiring}


def sign_mean(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """`sign(mean w_i) · mean w_f`: signed magnitude of filters.

    `w_i` is at initialisation and `w_f` after training. From an undergraduate thesis on annealing
    over masks, 2020, after Zhou et al., "Deconstructing lottery tickets", 2019.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 2, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> first = {"fc1": {"kernel": np.array([[-1.0, -1.0], [-1.0, -1.0]])}}
    >>> last = {"fc1": {"kernel": np.array([[3.0, 1.0], [-4.0, 0.0]])}}
    >>> evidence = Evidence(first, last, {}, None, None, None)
    >>> sign_mean(jax.random.key(0), evidence, wiring)["fc1"].tolist()
    [0.5, -0.5]
    """
    del key
    means = [
        {g.name: jnp.mean(filters(params, g), 1) for g in wiring}
        for params in (evidence.init_params, evidence.params)
    ]
    return {name: jnp.sign(means[0][name]) * means[1][name] for name in means[0]}
