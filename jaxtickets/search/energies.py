"""Energies: what a search lowers. `energy(key, mask) -> scalar`, lower is better.

The parameters are those of the closure: at initialisation, after k training steps, or with signed
constants (`nets.signed_constant`) - the energy doesn't know. Test data never comes here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import losses, masks, training
from jaxtickets.dynamic.static import masked
from jaxtickets.types import Array, Key, Loss, Mask, Model, Params, Prunable, Scores, Split, Stats


class Energy(NamedTuple):
    """What is lowered.

    Attributes:
      evaluate: `evaluate(key, mask) -> float32 scalar`.
      fresh: whether the value depends on the key, as with a new minibatch a step. The search then
        scores the current mask and the proposed one with the same key, which costs twice as much.
      cost: of an evaluation, in forward passes of one example; a gradient counts as two more.
    """

    evaluate: Callable[[Key, Mask], Array]
    fresh: bool
    cost: int = 0


Measure = Callable[[Array, Array], Array]
MEASURES: dict[str, Measure] = {
    "cross_entropy": losses.cross_entropy,
    "error_rate": losses.error_rate,
}


def scales(mask: Mask, prunable: Prunable) -> dict[str, Array]:
    """Path -> what `rescale` multiplies that leaf by: one over the square root of its density.

    The mask may be of float zeros and ones, as a gate's is in training.
    """
    kept = masks.densities(jax.tree.map(lambda bits: bits != 0, mask), prunable)
    return {path: jax.lax.rsqrt(jnp.maximum(kept[path], 1e-12)) for path in prunable}


def rescale(mask: Mask, params: Params, prunable: Prunable) -> Params:
    """All weights of each prunable leaf divided by the square root of the leaf's density.

    The weights that the mask keeps then have the pre-activations' variance of the dense net:
    `w · sqrt(size / kept)`, leaf by leaf; the dynamic weight rescaling of Zhou et al., 2019,
    section 5, but with the root, so that variances and not means of |w| are kept. Nothing is
    masked.
    """
    factor = scales(mask, prunable)
    leaves = [
        leaf * factor[path]
        for path, leaf in zip(prunable, masks.pick(params, prunable), strict=True)
    ]
    return masks.put(params, prunable, leaves)


def rescaled(mask: Mask, params: Params, prunable: Prunable) -> Params:
    """The masked parameters, `rescale`d; an empty leaf stays zero."""
    return masks.apply(mask, rescale(mask, params, prunable))


def fixed(
    model: Model,
    params: Params,
    stats: Stats,
    images: Array,
    labels: Array,
    measure: Measure,
    effective: Callable[[Mask, Params], Params] = masks.apply,
) -> Energy:
    """The measure over given images, in evaluation mode: all training data, or a fixed subset.

    Args:
      model: the net as functions.
      params, stats: the weights that the mask selects from.
      images: float`[n, h, w, c]`, normalised.
      labels: int`[n]`.
      measure: `(logits, labels) -> scalar`.
      effective: `(mask, params) -> params`: `masks.apply`, or `rescaled` over given leaves.
    """

    def evaluate(key: Key, mask: Mask) -> Array:
        del key
        logits, _ = model.apply(effective(mask, params), stats, images)
        return measure(logits, labels)

    return Energy(evaluate, fresh=False, cost=len(labels))


def minibatch(
    model: Model,
    params: Params,
    stats: Stats,
    images: Array,
    labels: Array,
    measure: Measure,
    prepare: Callable[[Array], Array],
    batch_size: int,
    effective: Callable[[Mask, Params], Params] = masks.apply,
) -> Energy:
    """The measure over a new random minibatch at each step, drawn with replacement.

    As `fixed`, but `images` are raw and `prepare` normalises those that are drawn.
    """

    def evaluate(key: Key, mask: Mask) -> Array:
        index = jax.random.randint(key, (batch_size,), 0, labels.shape[0])
        logits, _ = model.apply(effective(mask, params), stats, prepare(images[index]))
        return measure(logits, labels[index])

    return Energy(evaluate, fresh=True, cost=batch_size)


def trainability(
    model: Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    params: Params,
    stats: Stats,
    batches: Split,
    images: Array,
    labels: Array,
    measure: Measure,
    noise_key: Key,
    effective: Callable[[Mask, Params], Params] = masks.apply,
) -> Energy:
    """The measure on held-out images after j masked training steps from the parameters.

    Always the same j batches in the same order and the same dropout (common random numbers), so
    that the difference between two masks is the masks' own.

    Args:
      model, params, stats, measure, effective: as in `fixed`.
      loss, optimizer: of the training steps.
      batches: stacked training batches, leading axis j.
      images, labels: normalised images that the batches don't hold.
      noise_key: the key of all trainings.
    """

    def evaluate(key: Key, mask: Mask) -> Array:
        del key
        sparse = masked(optimizer, mask)
        state = training.init(effective(mask, params), stats, sparse)
        state, _ = training.advance(loss, sparse, noise_key, state, batches)
        logits, _ = model.apply(state.params, state.stats, images)
        return measure(logits, labels)

    return Energy(evaluate, fresh=False, cost=training_cost(batches.labels.size) + len(labels))


def training_cost(examples: int) -> int:
    """Forward passes of one example that training on so many examples is worth: three each."""
    return 3 * examples


def gradient_flow(
    loss: Loss,
    params: Params,
    stats: Stats,
    batch: Split,
    key: Key,
    effective: Callable[[Mask, Params], Params] = masks.apply,
) -> Energy:
    """Minus the norm of the loss' gradient in the weights that the mask keeps.

    `-‖M ∘ ∇L(M ∘ w)‖₂`: how fast a gradient step would lower the loss, to first order; what GraSP
    wants to keep (Wang et al., "Picking winning tickets before training by preserving gradient
    flow", 2020).

    Args:
      loss: the training loss.
      params, stats, effective: as in `fixed`.
      batch: images and labels as the loss takes them.
      key: of dropout, the same for all masks.
    """

    def evaluate(unused: Key, mask: Mask) -> Array:
        del unused
        slope, _ = jax.grad(loss, has_aux=True)(effective(mask, params), stats, batch, key)
        return -optax.tree.norm(masks.apply(mask, slope))

    return Energy(evaluate, fresh=False, cost=training_cost(batch.labels.size))


def saliency(scores: Scores, prunable: Prunable) -> Energy:
    """The share of a criterion's scores that the mask loses: pruning as a search.

    Its lowest mask of a count is the criterion's own. The scores, such as SNIP's or SynFlow's, are
    those of the dense net, found once.
    """
    whole = jnp.sum(masks.flatten(scores, prunable))

    def evaluate(key: Key, mask: Mask) -> Array:
        del key
        kept = masks.flatten(masks.apply(mask, scores), prunable)
        return 1 - jnp.sum(kept) / whole

    return Energy(evaluate, fresh=False)


def orthogonality(
    params: Params,
    prunable: Prunable,
    effective: Callable[[Mask, Params], Params] = masks.apply,
) -> Energy:
    """How far the layers are from orthogonal, see `losses.orthogonality`; sees no data.

    Args:
      params: the weights that the mask selects from.
      prunable: the kernels that are scored.
      effective: as in `fixed`.
    """

    def evaluate(key: Key, mask: Mask) -> Array:
        del key
        return losses.orthogonality(masks.pick(effective(mask, params), prunable))

    return Energy(evaluate, fresh=False)


def mixture(parts: Sequence[Energy], shares: Sequence[float]) -> Energy:
    """The sum of energies times their shares; with equal shares of several draws, their mean.

    Raises:
      ValueError: there are no parts, or not as many shares.
    """
    if not parts or len(parts) != len(shares):
        raise ValueError(f"{len(parts)} energies and {len(shares)} shares: one share each")

    def evaluate(key: Key, mask: Mask) -> Array:
        total = jnp.float32(0)
        for part, share in zip(parts, shares, strict=True):
            total += share * part.evaluate(key, mask)
        return total

    fresh = any(part.fresh for part in parts)
    return Energy(evaluate, fresh, sum(part.cost for part in parts))
