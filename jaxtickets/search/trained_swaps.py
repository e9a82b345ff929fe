"""Trained swaps: a few training steps select the weights to swap; the net is rewound each time.

The energy of a mask is the held-out loss E after j training steps. The same steps also inform the
next proposal. At the weights w_j after these steps, the move drops the kept weights with the
smallest |w_j| and grows the pruned weights with the largest |dE/dw|. The net is then rewound and
trained with the new mask. No dense net is trained, and the gradient is computed together with the
energy.

The rule is that of dynamic sparse training (Evci et al., "Rigging the lottery: making all tickets
winners", 2020). There, the mask changes during one training and fits the weights of that training.
Here, every mask is trained from the same initialisation, as in iterative magnitude pruning (Frankle
and Carbin, 2019), so that the result is a ticket that can be rewound. Layers and units exchange
weights freely, at an exact total count.
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
    """The result of a few training steps of a mask.

    Attributes:
      energy: float32 scalar, the held-out loss after the steps.
      drop_score: float`[n]`, |w_j|; the weights with the lowest are dropped.
      grow_score: float`[n]`, |dE/dw| at w_j; the weights with the highest are grown.
    """

    energy: Array
    drop_score: Array
    grow_score: Array


class Walk(NamedTuple):
    """A walk.

    Attributes:
      bits: bool`[n]`, the current point.
      learnt: the result of training at it.
    """

    bits: Array
    learnt: Learnt


Probe = Callable[[Key, Mask], Learnt]


def moves(space: Space, most: int, probe: Probe, floor: int = 0) -> Moves:
    """Trained swaps as moves over `bits[n]`; the size is the number of ones to switch off.

    In the scope `layer` each segment keeps its count and swaps a share of the size in proportion to
    its ones.

    Args:
      space: a space over the weights.
      most: the largest size that a proposal may ask for.
      probe: `probe(key, mask) -> Learnt`; called once for each proposal.
      floor: the fewest ones in each segment when ones move between segments.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 4))}, ("w",))
    >>> scores = jnp.array([1.0, 2.0, 3.0, 4.0])
    >>> swap = moves(space, most=1, probe=lambda key, mask: Learnt(0.0, scores, scores))
    >>> walk = swap.init(jax.random.key(0), jnp.array([True, True, False, False]))
    >>> swap.propose(jax.random.key(1), 1, walk).walk.bits.tolist()  # 0 is dropped, 3 is grown
    [False, True, False, True]
    """
    bound = sum(min(floor, size) for size in space.sizes)  # ones that no move can drop

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
            kept_counts = dict(zip(space.names, ones - moved, strict=True))
            grown_counts = dict(zip(space.names, moved, strict=True))
            kept = choose(space, jnp.where(bits, learnt.drop_score, -jnp.inf), kept_counts)
            new = choose(space, jnp.where(bits, -jnp.inf, learnt.grow_score), grown_counts)
        else:
            total = jnp.sum(ones)
            size = jnp.minimum(size, jnp.minimum(total - bound, space.size - total))
            kept = choose(space, jnp.where(bits, learnt.drop_score, -jnp.inf), total - size, floor)
            new = choose(space, jnp.where(bits | kept, -jnp.inf, learnt.grow_score), size)
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
    """The `Probe` that takes j masked training steps from the parameters.

    Args:
      model, loss, optimizer: the net, the loss and the optimiser of the training steps.
      params, stats: where every training starts.
      batches: `batches(key) -> Split`, stacked, leading axis j: different batches for each
        proposal, so that drop scores do not depend on one fixed part of the data.
      images, labels: normalised images that the batches do not hold, and their labels.
      measure: the measure of the energy, differentiable.
      prunable: the leaves that the bits stand for.

    >>> from jaxtickets.nets import functional_plain
    >>> params, images = {"w": jnp.array([[2.0], [4.0]])}, jnp.array([[1.0, 10.0]])
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> def decay(params, stats, batch, key):
    ...     return jnp.sum(params["w"] ** 2) / 2, (stats, {})
    >>> probe = trained(
    ...     net,
    ...     decay,
    ...     optax.sgd(0.5),
    ...     params,
    ...     stats={},
    ...     batches=lambda key: Split(images[None], jnp.array([[0]])),
    ...     images=images,
    ...     labels=jnp.array([0]),
    ...     measure=lambda logits, labels: jnp.sum(logits),
    ...     prunable=("w",),
    ... )
    >>> learnt = probe(jax.random.key(0), {"w": np.array([[True], [False]])})
    >>> float(learnt.energy), learnt.drop_score.tolist(), learnt.grow_score.tolist()
    (1.0, [1.0, 0.0], [1.0, 10.0])
    """

    def energy(params: Params, stats: Stats) -> Array:
        return measure(model.apply(params, stats, images)[0], labels)

    def probe(key: Key, mask: Mask) -> Learnt:
        order_key, noise_key = jax.random.split(key)
        sparse = masked(optimizer, mask)
        state = training.init(params, stats, sparse)
        state, _ = training.advance(loss, sparse, noise_key, state, batches(order_key))
        value, gradient = jax.value_and_grad(energy)(state.params, state.stats)
        drop_score, grow_score = (
            jnp.abs(masks.flatten(tree, prunable)) for tree in (state.params, gradient)
        )
        return Learnt(value.astype(jnp.float32), drop_score, grow_score)

    return probe
