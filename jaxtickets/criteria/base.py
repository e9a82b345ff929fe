"""The inputs of a criterion, and the facts that are known about it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.losses import CLASSIFICATION, Task
from jaxtickets.shape_checks import check_leading
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
"""The factor that multiplies a loss before it is differentiated, and divides its gradient.

Without it, a float16 net loses gradients below 6e-8 (Micikevicius et al., "Mixed precision
training", 2018, section 3.2). A power of two changes no bit of a float32 gradient.
"""


class Evidence(NamedTuple):
    """Everything that a criterion may read; what a criterion does not read may be None.

    Attributes:
      init_params: the parameters at initialisation.
      params: the parameters after training, or those to score at initialisation.
      stats: the batch statistics of `params`.
      mask: the mask so far, bool like `params`.
      batches: stacked training batches: `Split` with a leading axis of batches.
      loss: the training loss.
      model: the net as functions.
      prepare: uint8 images -> the float images that the net reads.
      prunable: the leaves whose gradients a criterion combines, as GraSP does; None for
        `masks.prunable(params)`.
      task: what the net is asked, for criteria that differentiate its outputs; None for
        `losses.CLASSIFICATION`.
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
    task: Task | None = None


Score = Callable[[Key, Evidence], Scores]
"""`score(key, evidence) -> scores`: PyTree of float like the parameters; higher is kept first."""

UnitScore = Callable[[Key, Evidence, Wiring], dict[str, Array]]
"""`score(key, evidence, wiring) -> {group: float[units]}`; higher is kept first."""

Weights = Literal["initial", "trained"]


class Criterion(NamedTuple):
    """A criterion of weights: its score, and the facts that callers need.

    Attributes:
      score: the score function.
      looks_at: the weights that the criterion needs. `initial`: the initial weights, in
        `Evidence.params`, or no trained weights at all, so that no training is needed. `trained`:
        the weights after a dense training, in `Evidence.params`.
      cost: the cost of the score, in forward passes of one example for each example of the batches;
        a gradient is three. 0 if it reads no examples.
      cost_per_class: the same cost for each class of the data, added to `cost`.
      draws: whether the scores are purely random. Each mask then needs its own key, and the inverse
        is random too.
      rounds: the number of rounds of pruning without training in between; each round scores the
        weights that the previous one kept.
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
      score: the score function.
      weights_alone: whether the score reads only the units' incoming weights in `Evidence.params`,
        and no key, so that it can be computed at any training step.
      draws: whether the scores are purely random; each density then needs its own key.
    """

    score: UnitScore
    weights_alone: bool = False
    draws: bool = False


def forward_passes(criterion: Criterion, examples: int, classes: int) -> int:
    """The cost of computing the scores once, in forward passes of one example.

    Args:
      criterion: the criterion.
      examples: the number of examples in its batches.
      classes: the number of classes of the data.

    >>> forward_passes(Criterion(score=None, cost=3), examples=100, classes=10)
    300
    """
    return (criterion.cost + criterion.cost_per_class * classes) * examples


def single(tree: PyTree) -> PyTree:
    """Casts floats of 16 bits or less to float32; other leaves do not change.

    In float16, products of small weights and gradients underflow, and sums over large layers
    overflow.

    >>> {name: leaf.dtype.name for name, leaf in single({"w": np.ones(2, "float16")}).items()}
    {'w': 'float32'}
    """

    def leaf(value: Array) -> Array:
        kind = jnp.result_type(value)
        narrow = jnp.issubdtype(kind, jnp.floating) and kind.itemsize < 4
        return jnp.asarray(value, jnp.float32) if narrow else value

    return jax.tree.map(leaf, tree)


def in_single(evidence: Evidence) -> Evidence:
    """The evidence with `single` parameters and statistics, so that scores are at least float32.

    >>> params = {"w": np.ones(2, "float16")}
    >>> in_single(Evidence(params, params, {}, None, None, None)).params["w"].dtype.name
    'float32'
    """
    names = ("init_params", "params", "stats")
    return evidence._replace(**{name: single(getattr(evidence, name)) for name in names})


def loss_gradient(loss: Callable[[Params], Array], params: Params) -> Params:
    """The gradient of `loss(params) -> scalar`, computed at `LOSS_SCALE` times the loss.

    >>> loss = lambda params: jnp.sum(params["w"] ** 2)
    >>> loss_gradient(loss, {"w": jnp.array([1.0, 3.0])})["w"].tolist()
    [2.0, 6.0]
    """

    def scaled(params: Params) -> Array:
        return single(loss(params)) * LOSS_SCALE

    return jax.tree.map(lambda a: a / LOSS_SCALE, jax.grad(scaled)(params))


def task_of(evidence: Evidence) -> Task:
    """What the net is asked: classes unless the evidence says otherwise.

    >>> task_of(Evidence({}, {}, {}, {}, None, None)) is CLASSIFICATION
    True
    """
    return evidence.task or CLASSIFICATION


def evaluation_loss(evidence: Evidence, params: Params, images: Array, labels: Array) -> jax.Array:
    """The mean loss of examples `[n, ...]` in evaluation mode: nothing is dropped or averaged.

    >>> net = Model(None, lambda params, stats, images, *_: (images * params["w"], stats))
    >>> evidence = Evidence(None, None, {}, None, None, None, net, prepare=lambda images: images)
    >>> images, labels = np.array([[1.0, 0.0]]), np.array([0])
    >>> losses = [evaluation_loss(evidence, {"w": w}, images, labels) for w in (0.0, 9.0)]
    >>> [round(float(loss), 3) for loss in losses]  # log 2, log(1 + exp(-9))
    [0.693, 0.0]
    """
    task = task_of(evidence)
    inputs, targets = task.read(evidence.prepare(images), labels)
    outputs, _ = evidence.model.apply(params, evidence.stats, inputs, None, False)
    return task.loss(outputs, targets)


def check_batches(evidence: Evidence) -> tuple[int, ...]:
    """The numbers of batches and of examples in each, the leading axes of all leaves.

    Raises:
      ValueError: images and labels disagree on them, or lack one.

    >>> batches = Split(np.zeros((2, 5, 28, 28, 1)), np.zeros((2, 5), int))
    >>> check_batches(Evidence({}, {}, {}, {}, batches, None))
    (2, 5)
    """
    return check_leading("the batches", evidence.batches, ("batches", "size"))


def gradient(key: Key, evidence: Evidence) -> Params:
    """The gradient of the mean loss over all batches, in training mode; the key is consumed.

    It has the dtypes of the parameters, so pass `in_single(evidence)`.

    >>> loss = lambda params, stats, batch, key: (jnp.sum(params["w"] * batch.images), (stats, {}))
    >>> batches = Split(np.array([[[1.0, 0.0]], [[3.0, 2.0]]]), np.array([[0], [1]]))
    >>> params = {"w": jnp.ones((1, 2))}
    >>> gradient(jax.random.key(0), Evidence(params, params, {}, {}, batches, loss))["w"].tolist()
    [[2.0, 1.0]]
    """
    return mean_over_batches(key, evidence, lambda gradient: gradient)


def mean_over_batches(key: Key, evidence: Evidence, of: Callable[[Params], Params]) -> Params:
    """The mean over the batches of `of(gradient of a batch's loss)`, in training mode.

    The key feeds dropout and is consumed.

    >>> loss = lambda params, stats, batch, key: (jnp.sum(params["w"] * batch.images), (stats, {}))
    >>> batches = Split(np.array([[[1.0, 0.0]], [[3.0, 2.0]]]), np.array([[0], [1]]))
    >>> params = {"w": jnp.ones((1, 2))}
    >>> evidence = Evidence(params, params, {}, {}, batches, loss)
    >>> squared = lambda gradient: {"w": gradient["w"] ** 2}
    >>> mean_over_batches(jax.random.key(0), evidence, squared)["w"].tolist()
    [[5.0, 2.0]]
    """
    batches, _ = check_batches(evidence)
    keys = jax.random.split(key, batches)

    def add(total: Params, element: tuple[Key, Split]) -> tuple[Params, None]:
        k, batch = element

        def loss(params: Params) -> Array:
            return evidence.loss(params, evidence.stats, batch, k)[0]

        return jax.tree.map(jnp.add, total, of(loss_gradient(loss, evidence.params))), None

    zero = jax.tree.map(jnp.zeros_like, evidence.params)
    total, _ = lax.scan(add, zero, (keys, evidence.batches))
    return jax.tree.map(lambda a: a / len(keys), total)


def mean_over_examples(evidence: Evidence, one: Callable[[Array, Array], PyTree]) -> PyTree:
    """The mean of `one(images[1, ...], labels[1])` over the examples of all batches in turn.

    >>> batches = Split(np.array([[[1.0], [2.0]], [[3.0], [6.0]]]), np.zeros((2, 2), int))
    >>> evidence = Evidence({}, {}, {}, {}, batches, None)
    >>> mean_over_examples(evidence, lambda images, labels: images[0]).tolist()
    [3.0]
    """
    check_batches(evidence)
    examples = jax.tree.map(lambda a: a.reshape(-1, 1, *a.shape[2:]), evidence.batches)
    total = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype),
        jax.eval_shape(one, *jax.tree.map(lambda a: a[0], examples)),
    )

    def add(total: PyTree, example: Split) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, one(*example)), None

    count = examples.labels.shape[0]
    return jax.tree.map(lambda a: a / count, lax.scan(add, total, examples)[0])
