"""A chain of a search, advanced in chunks; after each, the best point so far meets validation data.

The best by energy is found inside the scan, the best by validation between the chunks: what a
chain returns isn't the one that fits the energy's own images best.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search import annealing
from jaxtickets.search.energies import Energy
from jaxtickets.types import Array, Key, Mask, PyTree


class Chain(NamedTuple):
    """A search in progress.

    Attributes:
      state: the annealer's.
      chosen: the point of the lowest validation score so far.
      chosen_score: that score.
      memory: of meetings with other chains, see `together`.
    """

    state: annealing.State
    chosen: PyTree
    chosen_score: Array
    memory: PyTree = ()


class ChunkInfo(NamedTuple):
    """What a chunk ended with.

    Attributes:
      hamming: int32, how far the walk is from its first point: for masks, the bits that differ.
      drift: float32, how far what the walk keeps by differences was off; 0 where energies are
        evaluated from the mask alone.
      chosen_score: float32, the lowest validation score so far.
    """

    hamming: Array
    drift: Array
    chosen_score: Array


def begin(state: annealing.State) -> Chain:
    """A chain whose first chunk is yet to come."""
    return Chain(state, state.best, jnp.asarray(jnp.inf, float))


def chunk(
    kernel: annealing.Kernel,
    energy: Energy,
    mask_of: Callable[[PyTree], Mask],
    validate: Callable[[Mask], Array],
    key: Key,
    chain: Chain,
    ticks: annealing.StepPlan,
) -> tuple[Chain, annealing.Info, ChunkInfo]:
    """Runs `ticks`, then scores a candidate by `validate(mask) -> scalar`, lower is better.

    The candidate is the point of the lowest energy so far; when the energy is a new minibatch's at
    each step, and the lowest therefore a lucky batch's, the current point. `mask_of` is the mask of
    a point. The key is the chain's, the same for all chunks. What the walk keeps by differences is
    refreshed at the end.

    Returns:
      The chain, the infos of its steps, stacked, and that of the chunk.
    """
    state, info = annealing.run(kernel, key, chain.state, ticks)
    state, drift = kernel.refresh(state)
    candidate = kernel.point(state) if energy.fresh else state.best
    score = validate(mask_of(candidate)).astype(float)
    better = score < chain.chosen_score
    chosen = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, chain.chosen)
    least = jnp.where(better, score, chain.chosen_score)  # a NaN is no better
    chain = chain._replace(state=state, chosen=chosen, chosen_score=least)
    return chain, info, ChunkInfo(kernel.distance(state), jnp.float32(drift), least)
