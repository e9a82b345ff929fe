"""Informed swaps: of a few thousand random pairs, those that the gradient thinks well of.

Candidates are pairs of a one and a zero, drawn as swaps are, in O(candidates). The derivative g of
the energy with respect to a relaxed mask says what swapping a pair would change, to first order:

    d = g[zero] - g[one]

and k pairs are chosen one after another with probabilities proportional to `exp(-d / (2 T))`, by
adding Gumbel noise and taking the k highest. The square root of the Boltzmann factor makes the
proposal locally balanced: Zanella, "Informed proposals for local MCMC in discrete spaces", 2020; by
gradients, Grathwohl et al., "Oops I took a gradient", 2021. As T goes to 0 the best candidates are
taken; at the infinite temperature of a walk that hasn't been told any, random ones.

The proposal isn't symmetric. The correction is exact: the same positions of the walk's order are as
likely to be drawn from where the swap leads to, so that the candidates are the same pairs, those
that were swapped being turned round; and choosing these in the reverse order, by the gradient
there, is the way back. That costs a gradient a step, otherwise there is one for each acceptance,
and under `vmap`, where a `cond` runs both branches, one a step too.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets import masks
from jaxtickets.search import swaps
from jaxtickets.search.energies import Measure
from jaxtickets.search.moves import Moves, Proposal
from jaxtickets.search.space import Space, counts, segment
from jaxtickets.search.swaps import Walk
from jaxtickets.types import Array, Key, Mask, Model, Params, Prunable, Stats

Slope = Callable[[Mask], Array]
"""`slope(mask) -> float32[n]`: the energy's derivative with respect to each bit, relaxed."""


class Local(NamedTuple):
    """What a walk remembers of where it stands.

    Attributes:
      slope: float32`[n]`, the derivatives there.
      temperature: float32, of the step to come.
    """

    slope: Array
    temperature: Array


def moves(
    space: Space,
    most: int,
    slope: Slope,
    candidates: int = 2000,
    corrected: bool = False,
    floor: tuple[int, ...] | None = None,
) -> Moves:
    """Informed swaps as moves over bits`[n]`; the size is the number of ones to switch off.

    Args:
      space: the state space.
      most: the largest swap that will be asked for; never more than there are candidates.
      slope: the derivatives at a mask.
      candidates: how many pairs are looked at.
      corrected: whether proposals tell the `log_ratio` that keeps Metropolis' rule exact.
      floor: the least number of ones in each segment; a swap that goes below is refused.
    """
    count = max(min(candidates, space.size // 2), 1)
    most = max(min(most, count), 1)
    lane = jnp.arange(count)

    def init(key: Key, bits: Array) -> Walk:
        walk = swaps.init(key, space, bits)
        return walk._replace(memory=Local(_slope(bits), jnp.float32(jnp.inf)))

    def _slope(bits: Array) -> Array:
        return slope(space.mask(bits)).astype(jnp.float32)

    def propose(key: Key, size: Array, walk: Walk) -> Proposal:
        draw_key, noise_key = jax.random.split(key)
        drawn = swaps.draw(draw_key, space, walk, size)
        here, temperature = walk.memory
        heat = 2 * jnp.maximum(temperature, 1e-30)
        ones, zeros = swaps.positions(space, drawn, count)
        live = lane < jnp.minimum(drawn.ones, drawn.zeros).astype(jnp.int32)
        off, on = walk.order[ones], walk.order[zeros]
        logit = jnp.where(live, (here[off] - here[on]) / heat, -jnp.inf)
        rank = lax.top_k(logit + jax.random.gumbel(noise_key, (count,)), count)[1]
        taken = lane < drawn.size
        off, on, pairs = off[rank], on[rank], (ones[rank[:most]], zeros[rank[:most]], taken[:most])
        bits, order = swaps.swap_entries(walk.bits, walk.order, *pairs)
        log_ratio, there = jnp.float32(0), here
        if corrected:
            there = _slope(bits)
            back = jnp.where(taken, -1, 1) * (there[off] - there[on]) / heat
            back = jnp.where(live[rank], back, -jnp.inf)
            log_ratio = _log_chance_back(back, taken) - _log_chance(logit[rank], taken)
        allowed = jnp.bool_(True)
        if floor is not None:
            change = _layer_change(space, off, on, taken)
            allowed = jnp.all(counts(space, walk.bits) + change >= jnp.asarray(floor))
        walk = walk._replace(bits=bits, order=order, memory=Local(there, temperature))
        return Proposal(walk, allowed, log_ratio, drawn.size, (pairs, here))

    def settle(proposal: Proposal, accepted: Array) -> Walk:
        (ones, zeros, taken), here = proposal.undo
        walk = proposal.walk
        bits, order = swaps.swap_entries(walk.bits, walk.order, ones, zeros, taken & ~accepted)
        if corrected:
            now = jnp.where(accepted, walk.memory.slope, here)
        else:
            now = lax.cond(accepted, _slope, lambda bits: here, bits)
        return walk._replace(bits=bits, order=order, memory=walk.memory._replace(slope=now))

    def heat(walk: Walk, temperature: Array) -> Walk:
        warm = walk.memory._replace(temperature=jnp.asarray(temperature, jnp.float32))
        return walk._replace(memory=warm)

    return Moves(init, propose, settle, lambda walk: walk.bits, swaps.hamming, most, heat=heat)


def fixed(
    model: Model,
    params: Params,
    stats: Stats,
    images: Array,
    labels: Array,
    measure: Measure,
    prunable: Prunable,
    values: Callable[[Mask, Params], Params] = lambda mask, params: params,
) -> Slope:
    """The derivatives of `energies.fixed` over the bits of `space.weights`.

    Bit i relaxed to c multiplies its weight: `dE/dc = v · dE/dw`, at the effective weights w, v
    being the weight that is effective where the bit is on. What a bit does to its layer's density,
    and so to a rescaling by it, is left out; swaps within a layer don't change that.

    Args:
      model, params, stats, images, labels, measure: as in `energies.fixed`; the measure is smooth.
      prunable: the leaves that the bits stand for.
      values: `(mask, params) -> params`: v, before it is masked, `energies.rescale` for instance.
    """

    def loss(effective: Params) -> Array:
        return measure(model.apply(effective, stats, images)[0], labels)

    def slope(mask: Mask) -> Array:
        dense = values(mask, params)
        gradient = jax.grad(loss)(masks.apply(mask, dense))
        return masks.flatten(dense, prunable) * masks.flatten(gradient, prunable)

    return slope


def _log_chance(logit: Array, taken: Array) -> Array:
    """Log chance of taking the first entries of `logit[c]`, one after another, out of all."""
    left = lax.cumlogsumexp(logit, reverse=True)
    return jnp.sum(jnp.where(taken, logit - left, 0.0))


def _log_chance_back(logit: Array, taken: Array) -> Array:
    """As `_log_chance`, but those that are taken are taken from the last to the first."""
    rest = jax.nn.logsumexp(jnp.where(taken, -jnp.inf, logit))
    left = jnp.logaddexp(lax.cumlogsumexp(jnp.where(taken, logit, -jnp.inf)), rest)
    return jnp.sum(jnp.where(taken, logit - left, 0.0))


def _layer_change(space: Space, off: Array, on: Array, taken: Array) -> Array:
    """int32`[segments]`: how the pairs that are taken change each segment's count."""
    one = taken.astype(jnp.int32)
    zero = jnp.zeros(len(space.starts), jnp.int32)
    return zero.at[segment(space, on)].add(one).at[segment(space, off)].add(-one)
