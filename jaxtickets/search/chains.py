"""A chain of a search, advanced in chunks; after each, the best mask so far meets validation data.

The best by energy is found inside the scan, the best by validation between the chunks: what a
chain returns isn't the mask that fits the energy's own images best.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxtickets.search import annealing
from jaxtickets.search.energies import Energy
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Key, Mask


class Chain(NamedTuple):
    """A search in progress.

    Attributes:
      state: the annealer's.
      chosen_bits: bool`[n]`, the mask of the lowest validation score so far.
      chosen_score: that score.
    """

    state: annealing.State
    chosen_bits: Array
    chosen_score: Array


def begin(state: annealing.State) -> Chain:
    """A chain whose first chunk is yet to come."""
    return Chain(state, state.best_bits, jnp.float32(jnp.inf))


def chunk(
    kernel: annealing.Kernel,
    energy: Energy,
    space: Space,
    validate: Callable[[Mask], Array],
    key: Key,
    chain: Chain,
    ticks: annealing.Tick,
) -> tuple[Chain, annealing.Info]:
    """Runs `ticks`, then scores a candidate by `validate(mask) -> scalar`, lower is better.

    The candidate is the mask of the lowest energy so far; when the energy is a new minibatch's at
    each step, and the lowest therefore a lucky batch's, the current mask. The key is the chain's,
    the same for all chunks.
    """
    state, info = annealing.run(kernel, key, chain.state, ticks)
    candidate = state.walk.bits if energy.fresh else state.best_bits
    score = validate(space.mask(candidate)).astype(jnp.float32)
    better = score < chain.chosen_score
    chosen = jnp.where(better, candidate, chain.chosen_bits)
    return Chain(state, chosen, jnp.minimum(score, chain.chosen_score)), info
