"""One chain of a search, advanced in chunks; after each chunk its best point is validated.

The scan tracks the point of the lowest energy. Between chunks, the validation score selects the
point that the chain returns, so that the result does not merely fit the examples of the energy.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search import annealing
from jaxtickets.search.energies import Energy
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Key, Mask, PyTree


class Chain(NamedTuple):
    """A search in progress.

    Attributes:
      state: the annealing state.
      chosen: the point of the lowest validation score so far, shaped like the points.
      chosen_score: float scalar, that score; infinite before the first chunk ends.
      memory: the state of interactions with other chains, see `interacting_chains`.
    """

    state: annealing.State
    chosen: PyTree
    chosen_score: Array
    memory: PyTree = ()


class ChunkInfo(NamedTuple):
    """Diagnostics at the end of a chunk, scalars.

    Attributes:
      hamming: the distance of the walk from its first point: the number of bits that differ
        (int32), or `Moves.distance` of other spaces.
      drift: float32, the largest error of what the walk updates incrementally; 0 where energies are
        computed from the mask alone.
      chosen_score: float, the lowest validation score so far.
    """

    hamming: Array
    drift: Array
    chosen_score: Array


def begin(state: annealing.State) -> Chain:
    """A chain before its first chunk.

    >>> from jaxtickets.search import energies, space, swaps
    >>> scores = {"w": jnp.array([[1.0, 3.0]])}
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))
    >>> kernel = annealing.build(swaps.moves(bits, most=1), bits.mask, lost, annealing.Rules())
    >>> chain = begin(kernel.init(jax.random.key(0), jnp.array([True, False])))
    >>> chain.chosen.tolist(), float(chain.chosen_score)
    ([True, False], inf)
    """
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
    """Runs the steps `ticks`, then validates a candidate point.

    The candidate is the point of the lowest energy so far. If the energy draws a new minibatch at
    each step, its lowest value only marks a lucky batch, and the candidate is the current point
    instead. At the end, `Kernel.refresh` recomputes what the walk updates incrementally.

    Args:
      kernel: the annealing kernel.
      energy: the kernel's energy.
      mask_of: `mask_of(point) -> Mask`.
      validate: `validate(mask) -> scalar`, lower is better; NaN never replaces the point chosen so
        far.
      key: the chain's key, the same for all chunks.
      chain: the chain before the chunk.
      ticks: the plans of the chunk's steps, stacked.

    Returns:
      The chain, the stacked infos of its steps, and the info of the chunk.

    >>> from jaxtickets.search import energies, space, swaps
    >>> scores, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> bits = space.weights(scores, ("w",))
    >>> lost = energies.saliency(scores, ("w",))  # the share of the scores that the mask loses
    >>> kernel = annealing.build(swaps.moves(bits, most=1), bits.mask, lost, annealing.Rules())
    >>> chain = begin(kernel.init(key, jnp.array([True, False])))
    >>> plans = annealing.step_plans(1, temperature=jnp.ones_like, size=jnp.ones_like)
    >>> validate = lambda mask: lost.evaluate(key, mask)
    >>> chain, info, _ = chunk(kernel, lost, bits.mask, validate, key, chain, plans)
    >>> chain.chosen.tolist(), float(chain.chosen_score)  # the only swap is an improvement
    ([False, True], 0.25)
    """
    state, info = annealing.run(kernel, key, chain.state, ticks)
    state, drift = kernel.refresh(state)
    candidate = kernel.point(state) if energy.fresh else state.best
    score = validate(mask_of(candidate))
    check_array("the validation score", score, ())
    score = score.astype(float)
    better = score < chain.chosen_score
    chosen = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, chain.chosen)
    least = jnp.where(better, score, chain.chosen_score)  # a NaN is no better
    chain = chain._replace(state=state, chosen=chosen, chosen_score=least)
    return chain, info, ChunkInfo(kernel.distance(state), jnp.float32(drift), least)
