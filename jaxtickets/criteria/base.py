"""What a criterion is given, and what is known of it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.types import (
    Array,
    Key,
    Loss,
    Mask,
    Model,
    Params,
    Prunable,
    PyTree,
    Scores,
    Split,
    Stats,
    Wiring,
)

LOSS_SCALE = 2.0**10
"""What a loss is multiplied by while it is differentiated, and its gradient divided by.

A net that computes in float16 has no slopes below 6e-8 otherwise (Micikevicius et al., "Mixed
precision training", 2018, section 3.2). A power of two changes no bit of a float32 gradient.
"""


class Evidence(NamedTuple):
    """All that a criterion may look at; each looks at its own part, the rest may be None.

    Attributes:
      init_params: parameters at initialisation.
      params: parameters after training (or those to be scored, at initialisation).
      stats: batch statistics that belong to `params`.
      mask: the mask so far.
      batches: stacked training batches: `Split` with a leading axis of batches.
      loss: the training loss.
      model: the net as functions.
      prepare: uint8 images -> the float images that the net is given.
      prunable: the leaves whose gradient counts where a criterion looks at them together, as GraSP
        does; None for `masks.prunable(params)`.
    """

    init_params: Params
    params: Params
    stats: Stats
    mask: Mask
    batches: Split | Any
    loss: Loss | Any
    model: Model | Any = None
    prepare: Callable[[Array], Array] | Any = None
    prunable: Prunable | None = None


Score = Callable[[Key, Evidence], Scores]
"""`score(key, evidence) -> scores`: PyTree of float like the parameters; higher is kept first."""

UnitScore = Callable[[Key, Evidence, Wiring], dict[str, Array]]
"""`score(key, evidence, wiring) -> {group: float[units]}`; higher is kept first."""

Weights = Literal["initial", "trained"]


class Criterion(NamedTuple):
    """A criterion of weights: its scores, and all that others must know of it.

    Attributes:
      score: the scores.
      looks_at: the weights that a mask is made from. `initial`: the score reads `Evidence.params`,
        and these are the first weights, or it reads no trained weight at all; no training is
        needed. `trained`: `Evidence.params` are those after a dense training.
      cost: of the score, in forward passes of one example for each example of the batches; a
        gradient is three. 0 where no example is looked at.
      cost_per_class: the same, for each class of the data; added to `cost`.
      draws: whether the scores are chance alone: each mask then needs a key of its own, and the
        inverse is chance too.
      rounds: in which a mask without training in between is made; each round scores what the one
        before left.
    """

    score: Score
    looks_at: Weights = "trained"
    cost: int = 0
    cost_per_class: int = 0
    draws: bool = False
    rounds: int = 1


class UnitCriterion(NamedTuple):
    """A criterion of units (filters and neurons).

    Attributes:
      score: the scores.
      weights_alone: whether the score reads the units' incoming weights in `Evidence.params` and
        nothing else, no key either, so that any step of a training can ask for it.
      draws: whether the scores are chance alone: each share kept then needs a key of its own.
    """

    score: UnitScore
    weights_alone: bool = False
    draws: bool = False


def forward_passes(criterion: Criterion, examples: int, classes: int) -> int:
    """Forward passes of one example that the scores take, once.

    Args:
      criterion: the criterion.
      examples: of the batches that it looks at.
      classes: of the data.
    """
    return (criterion.cost + criterion.cost_per_class * classes) * examples


def single(tree: PyTree) -> PyTree:
    """The tree with floats of 16 bits or less as float32; other leaves stay.

    Products of small weights and slopes are zero in float16, sums over large layers infinite.
    """

    def leaf(value: Array) -> Array:
        kind = jnp.result_type(value)
        narrow = jnp.issubdtype(kind, jnp.floating) and kind.itemsize < 4
        return jnp.asarray(value, jnp.float32) if narrow else value

    return jax.tree.map(leaf, tree)


def in_single(evidence: Evidence) -> Evidence:
    """The evidence with `single` parameters and statistics: its scores are float32 at least."""
    names = ("init_params", "params", "stats")
    return evidence._replace(**{name: single(getattr(evidence, name)) for name in names})


def slope(loss: Callable[[Params], Array], params: Params) -> Params:
    """The gradient of `loss(params) -> scalar`, found at `LOSS_SCALE` times the loss."""

    def scaled(params: Params) -> Array:
        return single(loss(params)) * LOSS_SCALE

    return jax.tree.map(lambda a: a / LOSS_SCALE, jax.grad(scaled)(params))


def gradient(key: Key, evidence: Evidence) -> Params:
    """The gradient of the mean loss over all batches, in training mode; the key is consumed.

    It has the parameters' types: give it `in_single(evidence)`.
    """
    return mean_over_batches(key, evidence, lambda gradient: gradient)


def mean_over_batches(key: Key, evidence: Evidence, of: Callable[[Params], Params]) -> Params:
    """The mean of `of(gradient of a batch's loss)` over the batches, in training mode.

    The key feeds dropout and is consumed.
    """
    keys = jax.random.split(key, jax.tree.leaves(evidence.batches)[0].shape[0])

    def add(total: Params, element: tuple[Key, Split]) -> tuple[Params, None]:
        k, batch = element

        def loss(params: Params) -> Array:
            return evidence.loss(params, evidence.stats, batch, k)[0]

        return jax.tree.map(jnp.add, total, of(slope(loss, evidence.params))), None

    zero = jax.tree.map(jnp.zeros_like, evidence.params)
    total, _ = lax.scan(add, zero, (keys, evidence.batches))
    return jax.tree.map(lambda a: a / len(keys), total)


def mean_over_examples(evidence: Evidence, one: Callable[[Array, Array], PyTree]) -> PyTree:
    """The mean of `one(images[1, ...], labels[1])` over all examples of the batches, in turn."""
    examples = jax.tree.map(lambda a: a.reshape(-1, 1, *a.shape[2:]), evidence.batches)
    total = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype),
        jax.eval_shape(one, *jax.tree.map(lambda a: a[0], examples)),
    )

    def add(total: PyTree, example: Split) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, one(*example)), None

    count = examples.labels.shape[0]
    return jax.tree.map(lambda a: a / count, lax.scan(add, total, examples)[0])
