"""The baseline masks of a ticket, at the same initialisation and density.

They are bits of the search's own space: weights, or units, whose scores are means over their
weights. In a space of patterns, they keep the pattern.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtickets.criteria import CRITERIA, Evidence, at_initialisation
from jaxtickets.search.space import Space, choose, counts
from jaxtickets.types import Array, Key

Control = Callable[[Key, Evidence, Space, Array, int], Array]
"""`baseline(key, evidence, space, ticket_bits[n], floor) -> bool[n]`; the key is consumed."""


def _dense(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """The dense mask: nothing is pruned."""
    del key, evidence, space, floor
    return jnp.ones_like(ticket)


def _random(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """A random mask with the ticket's total count, all segments together."""
    del evidence
    return choose(space, jax.random.uniform(key, ticket.shape), jnp.sum(ticket), floor)


def _random_layerwise(
    key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int
) -> Array:
    """A random mask with the ticket's count in each segment."""
    del evidence, floor
    keep = dict(zip(space.names, counts(space, ticket), strict=True))
    return choose(space, jax.random.uniform(key, ticket.shape), keep)


def _magnitude(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """One-shot magnitude pruning: the largest weights of `evidence.params`, after dense training.

    Combined with the initial parameters, this is the one-shot winning ticket of Frankle and Carbin,
    2019, section 2. All segments are ranked together.
    """
    scores = space.pool(CRITERIA["magnitude"].score(key, evidence))
    return choose(space, scores, jnp.sum(ticket), floor)


def _snip(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """SNIP at initialisation, `evidence.init_params`; all segments are ranked together."""
    scores = space.pool(at_initialisation(CRITERIA["snip"]).score(key, evidence))
    return choose(space, scores, jnp.sum(ticket), floor)


BASELINES: dict[str, Control] = {
    "random": _random,
    "random_layerwise": _random_layerwise,
    "magnitude": _magnitude,
    "snip": _snip,
    "dense": _dense,
}
