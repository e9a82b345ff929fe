"""Independent draws: each proposal is a random mask that does not depend on the current one.

With greedy acceptance this is random search: it keeps the best of all masks drawn. With Metropolis'
rule it is an independence sampler, which is symmetric because all masks are equally likely.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search import swaps
from jaxtickets.search.moves import Moves, Proposal, settle
from jaxtickets.search.space import Space, choose, counts
from jaxtickets.types import Array, Key


class Walk(NamedTuple):
    """A walk.

    Attributes:
      bits: bool`[n]`, the current point.
    """

    bits: Array


def moves(space: Space, most: int, floor: tuple[int, ...] | None = None) -> Moves:
    """Moves over `bits[n]` to a uniformly random mask with as many ones; `size` is ignored.

    In the scope `layer` each segment keeps its count; in the scope `global` only the total is kept.

    Args:
      space: the state space.
      most: the largest size that a proposal may ask for.
      floor: the fewest ones in each segment; a mask with fewer is not allowed.

    >>> from jaxtickets.search.space import weights
    >>> redraw = moves(weights({"w": np.ones((1, 4))}, ("w",)), most=2)
    >>> walk = redraw.init(jax.random.key(0), jnp.array([True, True, False, False]))
    >>> proposal = redraw.propose(jax.random.key(1), 2, walk)
    >>> int(redraw.point(proposal.walk).sum()), redraw.settle(proposal, False).bits.tolist()
    (2, [True, True, False, False])
    """

    def propose(key: Key, size: Array, walk: Walk) -> Proposal:
        del size
        bits = walk.bits
        kept = counts(space, bits)
        of_each = dict(zip(space.names, kept, strict=True))
        keep = of_each if space.scope == "layer" else jnp.sum(kept)
        there = choose(space, jax.random.uniform(key, bits.shape), keep)
        least = jnp.asarray(0 if floor is None else floor)
        allowed = jnp.all(counts(space, there) >= least)
        moved = jnp.sum(bits & ~there, dtype=jnp.int32)
        return Proposal(Walk(there), allowed, jnp.float32(0), moved, walk)

    def init(key: Key, bits: Array) -> Walk:
        return Walk(bits)

    return Moves(init, propose, settle, lambda walk: walk.bits, swaps.hamming, max(most, 1))
