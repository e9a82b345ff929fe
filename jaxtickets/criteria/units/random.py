"""Random: the baseline of every criterion of units."""

import jax

from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Array, Key, Wiring


def score(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """Independent uniform scores; the key is consumed."""
    del evidence
    keys = jax.random.split(key, len(wiring))
    return {g.name: jax.random.uniform(k, (g.size,)) for g, k in zip(wiring, keys, strict=True)}
