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


def dense(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """The dense mask: nothing is pruned.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"a": np.ones((1, 2)), "b": np.ones((1, 2))}, ("a", "b"))
    >>> dense(jax.random.key(0), None, space, jnp.array([True, False, False, False]), 0).tolist()
    [True, True, True, True]
    """
    del key, evidence, space, floor
    return jnp.ones_like(ticket)


def random(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """A random mask with the ticket's total count, all segments together.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"a": np.ones((1, 2)), "b": np.ones((1, 2))}, ("a", "b"))
    >>> ticket = jnp.array([True, False, False, True])
    >>> int(random(jax.random.key(0), None, space, ticket, floor=0).sum())
    2
    """
    del evidence
    return choose(space, jax.random.uniform(key, ticket.shape), jnp.sum(ticket), floor)


def random_layerwise(
    key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int
) -> Array:
    """A random mask with the ticket's count in each segment.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"a": np.ones((1, 2)), "b": np.ones((1, 2))}, ("a", "b"))
    >>> ticket = jnp.array([True, True, False, True])
    >>> counts(space, random_layerwise(jax.random.key(0), None, space, ticket, floor=0)).tolist()
    [2, 1]
    """
    del evidence, floor
    keep = dict(zip(space.names, counts(space, ticket), strict=True))
    return choose(space, jax.random.uniform(key, ticket.shape), keep)


def magnitude(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """One-shot magnitude pruning: the largest weights of `evidence.params`, after dense training.

    Combined with the initial parameters, this is the one-shot winning ticket of Frankle and Carbin,
    2019, section 2. All segments are ranked together.

    >>> from jaxtickets.search.space import weights
    >>> first, trained = {"w": jnp.array([[9.0, 9.0, 1.0]])}, {"w": jnp.array([[1.0, -3.0, 2.0]])}
    >>> ticket = jnp.array([True, False, False])
    >>> evidence = Evidence(first, trained, {}, {"w": ticket[None]}, batches=None, loss=None)
    >>> space = weights(first, ("w",))
    >>> magnitude(jax.random.key(0), evidence, space, ticket, floor=0).tolist()
    [False, True, False]
    """
    scores = space.pool(CRITERIA["magnitude"].score(key, evidence))
    return choose(space, scores, jnp.sum(ticket), floor)


def snip(key: Key, evidence: Evidence, space: Space, ticket: Array, floor: int) -> Array:
    """SNIP at initialisation, `evidence.init_params`; all segments are ranked together.

    >>> from jaxtickets.search.space import weights
    >>> from jaxtickets.types import Split
    >>> def loss(params, stats, batch, key):
    ...     return jnp.sum(params["w"] * batch.images), (stats, {})
    >>> params, ticket = {"w": jnp.array([[1.0, 2.0, 3.0]])}, jnp.array([True, False, False])
    >>> batches = Split(jnp.array([[[1.0, 9.0, 2.0]]]), jnp.zeros((1, 1), int))
    >>> dense = {"w": jnp.ones((1, 3), bool)}
    >>> evidence = Evidence(params, params, {}, dense, batches, loss)
    >>> snip(jax.random.key(0), evidence, weights(params, ("w",)), ticket, 0).tolist()  # 1, 18, 6
    [False, True, False]
    """
    scores = space.pool(at_initialisation(CRITERIA["snip"]).score(key, evidence))
    return choose(space, scores, jnp.sum(ticket), floor)


BASELINES: dict[str, Control] = {
    "random": random,
    "random_layerwise": random_layerwise,
    "magnitude": magnitude,
    "snip": snip,
    "dense": dense,
}
