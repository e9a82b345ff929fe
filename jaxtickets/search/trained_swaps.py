"""Rewired masks: swaps that a few training steps speak for; the net is rewound each time.

The energy of a mask is the held-out loss E after j training steps; those steps know more than E.
At the weights w_j that they end with, the kept weights with the smallest |w_j| have proven least,
and among the others those with the largest |dE/dw| would lower E most: these are swapped, and the
net is rewound and trained anew. Nothing dense is trained, and the gradient comes with the energy.

The rule is that of dynamic sparse training (Evci et al., "Rigging the lottery: making all tickets
winners", 2020), where a mask changes in the course of one training and what it ends with fits the
weights of that training. Here every mask is tried from the same initialisation, as iterative
magnitude pruning tries its own (Frankle and Carbin, 2019), so that it is one to be rewound; and
layers and units exchange weights freely, at an exact count.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks, training
from jaxtickets.dynamic.static import masked
from jaxtickets.search import swaps
from jaxtickets.search.energies import Measure
from jaxtickets.search.moves import Moves, Proposal, settle
from jaxtickets.search.space import Space, choose, counts
from jaxtickets.types import Array, Key, Loss, Mask, Model, Params, Prunable, Split, Stats


class Learnt(NamedTuple):
    """What training a mask's net for a few steps shows.

    Attributes:
      energy: float32, the held-out loss after it.
      worth: float32`[n]`: |w_j|.
      want: float32`[n]`: |dE/dw| there.
    """

    energy: Array
    worth: Array
    want: Array


class Walk(NamedTuple):
    """Where a walk stands: bool`[n]`, and what was learnt there."""

    bits: Array
    learnt: Learnt


Probe = Callable[[Key, Mask], Learnt]


def moves(space: Space, most: int, probe: Probe, floor: int = 0) -> Moves:
    """Rewiring as moves over bits`[n]`; the size is the number of ones to switch off.

    In scope `layer` each segment swaps its share of the size, by its ones, and keeps its count.

    Args:
      space: over the weights.
      most: the largest size that will be asked for.
      probe: what training shows; called once a proposal.
      floor: the least that a segment keeps where ones move between segments.
    """
    bound = sum(min(floor, size) for size in space.sizes)  # these are kept, whatever the size

    def init(key: Key, bits: Array) -> Walk:
        return Walk(bits, probe(key, space.mask(bits)))

    def propose(key: Key, size: Array, walk: Walk) -> Proposal:
        bits, learnt = walk
        ones, size = counts(space, bits), jnp.asarray(size, jnp.int32)
        if space.scope == "layer":
            zeros = jnp.asarray(space.sizes, jnp.int32) - ones
            share = jnp.round(size * (ones / jnp.sum(ones))).astype(jnp.int32)
            moved = jnp.minimum(share, jnp.minimum(ones, zeros))
            size = jnp.sum(moved)
            stay = dict(zip(space.names, ones - moved, strict=True))
            come = dict(zip(space.names, moved, strict=True))
            kept = choose(space, jnp.where(bits, learnt.worth, -jnp.inf), stay)
            new = choose(space, jnp.where(bits, -jnp.inf, learnt.want), come)
        else:
            total = jnp.sum(ones)
            size = jnp.minimum(size, jnp.minimum(total - bound, space.size - total))
            kept = choose(space, jnp.where(bits, learnt.worth, -jnp.inf), total - size, floor)
            new = choose(space, jnp.where(bits | kept, -jnp.inf, learnt.want), size)
        there = kept | new
        after = Walk(there, probe(key, space.mask(there)))
        return Proposal(after, jnp.bool_(True), jnp.float32(0), size, walk)

    return Moves(init, propose, settle, lambda walk: walk.bits, swaps.hamming, most)


def trained(
    model: Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    params: Params,
    stats: Stats,
    batches: Callable[[Key], Split],
    images: Array,
    labels: Array,
    measure: Measure,
    prunable: Prunable,
) -> Probe:
    """What j masked training steps from the parameters show, see `Learnt`.

    Args:
      model, loss, optimizer: of the training steps.
      params, stats: where every training begins.
      batches: `batches(key) -> Split`, stacked, leading axis j: others for each proposal, so that
        what proves itself does so on all of the data.
      images, labels: normalised images that the batches don't hold.
      measure: smooth, of the energy.
      prunable: the leaves that the bits stand for.
    """

    def energy(params: Params, stats: Stats) -> Array:
        return measure(model.apply(params, stats, images)[0], labels)

    def probe(key: Key, mask: Mask) -> Learnt:
        order_key, noise_key = jax.random.split(key)
        sparse = masked(optimizer, mask)
        state = training.init(params, stats, sparse)
        state, _ = training.advance(loss, sparse, noise_key, state, batches(order_key))
        value, slope = jax.value_and_grad(energy)(state.params, state.stats)
        worth, want = (jnp.abs(masks.flatten(tree, prunable)) for tree in (state.params, slope))
        return Learnt(value.astype(jnp.float32), worth, want)

    return probe
