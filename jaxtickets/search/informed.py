"""Informed swaps: the gradient selects among a few thousand random pairs.

Candidates are pairs of a one and a zero, drawn like swaps, in O(candidates). With g the derivative
of the energy with respect to a relaxed mask, swapping a pair changes the energy, to first order, by

    d = g[zero] - g[one]

k pairs are drawn one after another with probabilities proportional to `exp(-d / (2 T))`, by adding
Gumbel noise and taking the k highest. The square root of the Boltzmann factor makes the proposal
locally balanced: Zanella, "Informed proposals for local MCMC in discrete spaces", 2020; with
gradients, Grathwohl et al., "Oops I took a gradient", 2021. At T = 0 the best candidates are taken.
A walk that has not been given a temperature has T = ∞ and takes random ones.

The proposal is not symmetric, and its correction is exact. After the swap, the same positions of
the walk's order are equally likely to be drawn, so the candidates are the same pairs, with the
swapped ones reversed. The inverse move draws the swapped pairs in reverse order with the gradient
after the swap. The correction costs a gradient at each step; without it, there is a gradient only
for each accepted move, or, under `vmap`, where `cond` runs both branches, at each step.
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

MaskGradient = Callable[[Mask], Array]
"""`gradient(mask) -> float[n]`: the gradient of the energy with respect to the relaxed bits."""


class Local(NamedTuple):
    """What a walk stores about its current point.

    Attributes:
      gradient: float32`[n]`, the gradient of the energy at the point.
      temperature: float32 scalar, the temperature of the coming step.
    """

    gradient: Array
    temperature: Array


def moves(
    space: Space,
    most: int,
    gradient: MaskGradient,
    candidates: int = 2000,
    corrected: bool = False,
    floor: tuple[int, ...] | None = None,
) -> Moves:
    """Informed swaps as moves over `bits[n]`; the size is the number of ones to switch off.

    Args:
      space: the state space.
      most: the largest size that a proposal may ask for; at most `candidates`.
      gradient: the gradient of the energy at a mask.
      candidates: the number of candidate pairs.
      corrected: whether proposals compute the `log_ratio` that makes Metropolis' rule exact;
        otherwise it is 0.
      floor: the fewest ones in each segment; a swap below the floor is not allowed.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> swap = moves(space, most=1, gradient=lambda mask: jnp.array([0.0, 0.0, 5.0, 1.0]))
    >>> walk = swap.init(jax.random.key(0), jnp.array([False, False, True, True]))
    >>> cold = swap.heat(walk, 0.0)
    >>> proposal = jax.jit(swap.propose)(jax.random.key(1), 1, cold)
    >>> proposal.walk.bits[2:].tolist()  # the one with the largest derivative is switched off
    [False, True]
    """
    count = max(min(candidates, space.size // 2), 1)
    most = max(min(most, count), 1)
    lane = jnp.arange(count)

    def init(key: Key, bits: Array) -> Walk:
        walk = swaps.init(key, space, bits)
        return walk._replace(memory=Local(gradient_at(bits), jnp.float32(jnp.inf)))

    def gradient_at(bits: Array) -> Array:
        return gradient(space.mask(bits)).astype(jnp.float32)

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
            there = gradient_at(bits)
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
            now = jnp.where(accepted, walk.memory.gradient, here)
        else:
            now = lax.cond(accepted, gradient_at, lambda bits: here, bits)
        return walk._replace(bits=bits, order=order, memory=walk.memory._replace(gradient=now))

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
) -> MaskGradient:
    """The gradient of `energies.fixed` with respect to the bits of `space.weights`.

    Bit i, relaxed to c, multiplies its weight: `dE/dc = v · dE/dw` at the effective weights w,
    where v is the weight's value if its bit is on. The gradient ignores that a bit changes the
    density of its layer, and so any rescaling by it; swaps within a layer do not change the
    density.

    Args:
      model, params, stats, images, labels, measure: as in `energies.fixed`; the measure must be
        differentiable.
      prunable: the leaves that the bits stand for.
      values: `(mask, params) -> params`: the values v before masking, for example
        `energies.rescale`.

    >>> from jaxtickets.nets import functional_plain
    >>> params = {"w": jnp.array([[2.0], [3.0]])}
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> gradient = fixed(
    ...     net, params, {}, jnp.array([[1.0, 10.0]]), jnp.array([0]),
    ...     measure=lambda logits, labels: jnp.sum(logits), prunable=("w",)
    ... )
    >>> gradient({"w": np.array([[True], [True]])}).tolist()  # each weight times its input
    [2.0, 30.0]
    """

    def loss(effective: Params) -> Array:
        return measure(model.apply(effective, stats, images)[0], labels)

    def gradient(mask: Mask) -> Array:
        dense = values(mask, params)
        of_weights = jax.grad(loss)(masks.apply(mask, dense))
        return masks.flatten(dense, prunable) * masks.flatten(of_weights, prunable)

    return gradient


def _log_chance(logit: Array, taken: Array) -> Array:
    """The log probability of drawing the taken entries, the first of `logit[c]`, in their order."""
    left = lax.cumlogsumexp(logit, reverse=True)
    return jnp.sum(jnp.where(taken, logit - left, 0.0))


def _log_chance_back(logit: Array, taken: Array) -> Array:
    """Like `_log_chance`, but the taken entries are drawn from the last to the first."""
    rest = jax.nn.logsumexp(jnp.where(taken, -jnp.inf, logit))
    left = jnp.logaddexp(lax.cumlogsumexp(jnp.where(taken, logit, -jnp.inf)), rest)
    return jnp.sum(jnp.where(taken, logit - left, 0.0))


def _layer_change(space: Space, off: Array, on: Array, taken: Array) -> Array:
    """int32`[segments]`: the change of each segment's count by the taken pairs."""
    one = taken.astype(jnp.int32)
    zero = jnp.zeros(len(space.starts), jnp.int32)
    return zero.at[segment(space, on)].add(one).at[segment(space, off)].add(-one)
