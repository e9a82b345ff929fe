"""Energies: the quantity that a search minimises. `energy(key, mask) -> scalar`, lower is better.

An energy closes over its parameters. They may be initial weights, weights after k training steps,
or signed constants (`nets.signed_constant`). Energies never use test data.
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
    """An energy.

    Attributes:
      evaluate: `evaluate(key, mask) -> scalar`, float32 for float32 parameters.
      fresh: whether the value depends on the key, as with a new minibatch at each step. The search
        then evaluates both the current and the proposed mask with the same key, at twice the cost.
      cost: the cost of an evaluation, in forward passes of one example; a gradient counts as two
        more.
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
    """Path -> the factor of that leaf in `rescale`: `1 / sqrt(density)`, a float32 scalar.

    The mask may also hold float zeros and ones, like that of a gate in training.

    >>> mask = {"w": np.array([[True, False, False, False]])}
    >>> {path: float(factor) for path, factor in scales(mask, ("w",)).items()}  # 1 / sqrt(1 / 4)
    {'w': 2.0}
    """
    kept = masks.densities(jax.tree.map(lambda bits: bits != 0, mask), prunable)
    return {path: jax.lax.rsqrt(jnp.maximum(kept[path], 1e-12)) for path in prunable}


def rescale(mask: Mask, params: Params, prunable: Prunable) -> Params:
    """Divides each prunable leaf by the square root of its density: `w · sqrt(size / kept)`.

    The kept weights then give pre-activations of the same variance as the dense net. This is the
    dynamic weight rescaling of Zhou et al., 2019, section 5, with a square root, so that it
    preserves variances and not means of |w|. Nothing is masked.

    >>> mask = {"w": np.array([[True, False, False, False]])}
    >>> rescale(mask, {"w": jnp.array([[1.0, 2.0, 3.0, 4.0]])}, ("w",))["w"].tolist()
    [[2.0, 4.0, 6.0, 8.0]]
    """
    factor = scales(mask, prunable)
    leaves = [
        leaf * factor[path]
        for path, leaf in zip(prunable, masks.pick(params, prunable), strict=True)
    ]
    return masks.put(params, prunable, leaves)


def rescaled(mask: Mask, params: Params, prunable: Prunable) -> Params:
    """The `rescale`d parameters, masked; a leaf of which nothing is kept stays zero.

    >>> mask = {"w": np.array([[True, False, False, False]])}
    >>> rescaled(mask, {"w": jnp.array([[1.0, 2.0, 3.0, 4.0]])}, ("w",))["w"].tolist()
    [[2.0, 0.0, 0.0, 0.0]]
    """
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
    """The measure over fixed images in evaluation mode: all training data, or a subset.

    Args:
      model: the net as functions.
      params, stats: the weights that the mask selects from, and the batch statistics.
      images: float`[n, h, w, c]`, normalised.
      labels: int`[n]`.
      measure: `(logits, labels) -> scalar`.
      effective: `(mask, params) -> params`: `masks.apply`, or `rescaled` over the prunable leaves.

    >>> from jaxtickets.nets import functional_plain
    >>> params = {"w": jnp.eye(2)}
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> energy = fixed(net, params, {}, jnp.eye(2), np.array([0, 1]), losses.error_rate)
    >>> mask = {"w": np.array([[True, False], [True, False]])}
    >>> float(energy.evaluate(jax.random.key(0), mask))  # the second logit is always zero
    0.5
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

    The arguments are those of `fixed`, except that `images` are raw; `prepare` normalises the drawn
    ones.

    >>> from jaxtickets.nets import functional_plain
    >>> params, images, labels = {"w": jnp.eye(2)}, jnp.array([[0, 255]], jnp.uint8), jnp.array([1])
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> energy = minibatch(
    ...     net, params, {}, images, labels, losses.error_rate, lambda x: x / 255, batch_size=4
    ... )
    >>> float(energy.evaluate(jax.random.key(0), {"w": np.eye(2, dtype=bool)}))
    0.0
    >>> energy.cost, energy.fresh
    (4, True)
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

    Every evaluation uses the same j batches in the same order and the same dropout (common random
    numbers), so that two energies differ only because their masks do.

    Args:
      model, params, stats, measure, effective: as in `fixed`.
      loss, optimizer: the loss and the optimiser of the training steps.
      batches: stacked training batches, leading axis j.
      images, labels: normalised images that the batches do not hold, and their labels.
      noise_key: the key of every training.

    >>> from jaxtickets.nets import functional_plain
    >>> params, images, labels = {"w": jnp.zeros((2, 2))}, jnp.eye(2), jnp.array([0, 1])
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> loss, key = losses.classification(net, prepare=lambda images: images), jax.random.key(0)
    >>> one_step = Split(images[None], labels[None])
    >>> energy = trainability(
    ...     net, loss, optax.sgd(1.0), params, {}, one_step, images, labels, losses.error_rate, key
    ... )
    >>> dense, pruned = {"w": np.ones((2, 2), bool)}, {"w": np.zeros((2, 2), bool)}
    >>> float(energy.evaluate(key, dense)), float(energy.evaluate(key, pruned))
    (0.0, 0.5)
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
    """The cost of training on `examples` examples, in forward passes of one example: three each.

    >>> training_cost(100)
    300
    """
    return 3 * examples


def gradient_flow(
    loss: Loss,
    params: Params,
    stats: Stats,
    batch: Split,
    key: Key,
    effective: Callable[[Mask, Params], Params] = masks.apply,
) -> Energy:
    """Minus the norm of the loss gradient over the weights that the mask keeps.

    `-‖M ∘ ∇L(M ∘ w)‖₂`: to first order, how fast a gradient step lowers the loss. GraSP prunes so
    as to preserve it (Wang et al., "Picking winning tickets before training by preserving gradient
    flow", 2020).

    Args:
      loss: the training loss.
      params, stats, effective: as in `fixed`.
      batch: images and labels as the loss takes them.
      key: the key of dropout, the same for all masks.

    >>> def loss(params, stats, batch, key):
    ...     return jnp.sum(params["w"] ** 2) / 2, (stats, {})
    >>> params = {"w": jnp.array([[3.0, 4.0, 12.0]])}
    >>> energy = gradient_flow(loss, params, {}, Split(np.zeros(1), np.zeros(1)), jax.random.key(0))
    >>> float(energy.evaluate(jax.random.key(0), {"w": np.array([[True, True, False]])}))
    -5.0
    """

    def evaluate(unused: Key, mask: Mask) -> Array:
        del unused
        gradient, _ = jax.grad(loss, has_aux=True)(effective(mask, params), stats, batch, key)
        return -optax.tree.norm(masks.apply(mask, gradient))

    return Energy(evaluate, fresh=False, cost=training_cost(batch.labels.size))


def saliency(scores: Scores, prunable: Prunable) -> Energy:
    """The share of a criterion's total score that the mask loses: pruning as a search.

    The mask of minimal energy at a count is the one that the criterion selects. The scores, such as
    SNIP's or SynFlow's, are those of the dense net and are computed once.

    >>> scores = {"w": jnp.array([[1.0, 3.0]])}
    >>> energy = saliency(scores, ("w",))
    >>> float(energy.evaluate(jax.random.key(0), {"w": np.array([[False, True]])}))
    0.25
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
    """The distance of the layers from orthogonality, see `losses.orthogonality`; uses no data.

    Args:
      params: the weights that the mask selects from.
      prunable: the kernels that are scored.
      effective: as in `fixed`.

    >>> energy = orthogonality({"w": jnp.eye(2)}, ("w",))
    >>> float(energy.evaluate(jax.random.key(0), {"w": np.ones((2, 2), bool)}))
    0.0
    """

    def evaluate(key: Key, mask: Mask) -> Array:
        del key
        return losses.orthogonality(masks.pick(effective(mask, params), prunable))

    return Energy(evaluate, fresh=False)


def mixture(parts: Sequence[Energy], shares: Sequence[float]) -> Energy:
    """The sum of energies times their shares; equal shares of several draws give their mean.

    Raises:
      ValueError: there are no energies, or not one share for each.

    >>> one, three = (Energy(lambda key, mask, value=value: value, False) for value in (1.0, 3.0))
    >>> float(mixture([one, three], [0.5, 0.5]).evaluate(jax.random.key(0), {}))
    2.0
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
