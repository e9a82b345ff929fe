"""FPGM: removes the filters that the layer's other filters can replace."""

import jax.numpy as jnp
from jax import lax

from jaxtickets import masks
from jaxtickets.criteria.base import Evidence
from jaxtickets.criteria.units.filters import filters
from jaxtickets.types import Array, Key, Wiring


def score(key: Key, evidence: Evidence, wiring: Wiring, norm_keep: float = 1.0) -> dict[str, Array]:
    """`Σ_k ‖F_j − F_k‖₂` over the filters k of the layer; the lowest is nearest to their median.

    He et al., "Filter pruning via geometric median", 2019, equation 4. The key is not used.

    Args:
      key, evidence, wiring: see `UnitScore`.
      norm_keep: the share of filters that remain after a first pruning by L2 norm. The other
        filters rank lowest, in the order of their norms, with negative scores; distances are to the
        remaining filters only.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 3, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> params = {"fc1": {"kernel": np.array([[0.0, 1.0, 5.0]])}}
    >>> evidence = Evidence(params, params, {}, None, None, None)
    >>> score(jax.random.key(0), evidence, wiring)["fc1"].tolist()
    [6.0, 5.0, 9.0]
    """
    del key

    def group(rows: Array) -> Array:
        distances = lax.map(lambda row: jnp.linalg.norm(rows - row[None], axis=1), rows)
        norms = jnp.linalg.norm(rows, axis=1)
        stays = masks.top_k(norms, round(norm_keep * len(rows)))
        total = jnp.sum(jnp.where(stays[None], distances, 0.0), 1)
        return jnp.where(stays, total, norms - jnp.max(norms) - 1)

    return {g.name: group(filters(evidence.params, g)) for g in wiring}
