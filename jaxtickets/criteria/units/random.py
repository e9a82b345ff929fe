"""Random: the baseline of every criterion of units."""

import jax

from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Array, Key, Wiring


def score(key: Key, evidence: Evidence, wiring: Wiring) -> dict[str, Array]:
    """Independent uniform scores; the key is consumed.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 2, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> params = {"fc1": {"kernel": np.array([[3.0, 1.0], [-4.0, 0.0]])}}
    >>> evidence = Evidence(params, params, {}, None, None, None)
    >>> score(jax.random.key(0), evidence, wiring)["fc1"].shape
    (2,)
    """
    del evidence
    keys = jax.random.split(key, len(wiring))
    return {g.name: jax.random.uniform(k, (g.size,)) for g, k in zip(wiring, keys, strict=True)}
