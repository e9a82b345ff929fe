"""Cross-entropy, squared error, accuracy, tasks made of them, and orthogonality of weights."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Key, Loss, Model, Params, Split, Stats


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> jax.Array:
    """Mean softmax cross-entropy of `logits[n, classes]` against int `labels[n]`, in nats.

        - (1 - s) log p[label] - s mean_k log p[k],    with smoothing s

    Computed in float32 or higher. If a label is not one of the classes, the value and its gradient
    are NaN.

    Args:
      logits, labels: see above.
      smoothing: the share of the target that is spread evenly over all classes, the label's too;
        Szegedy et al. 2016, arXiv:1512.00567, section 7.

    Raises:
      ValueError: logits or labels have another shape or type, a label is not one of the classes
        (which is not detected under tracing), or `smoothing` is not in [0, 1).

    >>> round(float(cross_entropy(np.log([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1]))), 3)
    0.49
    """
    _check_shapes(logits, labels)
    check_labels(labels, logits.shape[-1])
    if not 0 <= smoothing < 1:
        raise ValueError(f"label smoothing {smoothing}: must be 0 or more and below 1")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    nats = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    if smoothing:
        even = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        nats = (1 - smoothing) * nats + smoothing * even
    # a product, because the gradient of a selection would ignore the wrong labels
    return jnp.mean(nats * jnp.where(_is_class(labels, logits), 1.0, jnp.nan).astype(nats.dtype))


def hits(logits: Array, labels: Array) -> jax.Array:
    """1 where `labels[n]` is the argmax of `logits[n, classes]`, else 0: float`[n]`.

    NaN where a label is not one of the classes.

    Raises:
      ValueError: logits or labels have another shape or type, or a label is not one of the classes
        (the latter is not detected under tracing).

    >>> hits(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0])).tolist()
    [1.0, 0.0]
    """
    _check_shapes(logits, labels)
    check_labels(labels, logits.shape[-1])
    hit = jnp.argmax(logits, axis=-1) == labels
    return jnp.where(_is_class(labels, logits), hit, jnp.nan)


def accuracy(logits: Array, labels: Array) -> jax.Array:
    """The fraction of `labels[n]` that are the argmax of `logits[n, classes]`, see `hits`.

    >>> float(accuracy(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0])))
    0.5
    """
    return jnp.mean(hits(logits, labels))


def check_labels(labels: Array, classes: int) -> None:
    """Raises ValueError unless all of int `labels[n]` are from 0 to `classes - 1`.

    Labels that are traced, or on another process's devices, are not checked.

    >>> check_labels(np.array([0, 3]), classes=3)
    Traceback (most recent call last):
    ValueError: a label is 3: labels must be whole numbers from 0 to 2, because
    the net has 3 classes
    """
    if isinstance(labels, jax.core.Tracer) or not getattr(labels, "is_fully_addressable", True):
        return
    values = np.asarray(labels)
    wrong = values[(values < 0) | (values >= classes)]
    if wrong.size:
        raise ValueError(
            f"a label is {wrong[0]}: labels must be whole numbers from 0 to {classes - 1}, because "
            f"the net has {classes} classes"
        )


def _check_shapes(logits: Array, labels: Array) -> None:
    check_array("the logits", logits, ("n", "classes"), float)
    check_array("the labels", labels, logits.shape[:1], int)


def _is_class(labels: Array, logits: Array) -> jax.Array:
    return (labels >= 0) & (labels < logits.shape[-1])


def error_rate(logits: Array, labels: Array) -> jax.Array:
    """One minus accuracy, in [0, 1].

    >>> float(error_rate(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0])))
    0.5
    """
    return 1.0 - accuracy(logits, labels)


def squared_error(outputs: Array, targets: Array) -> jax.Array:
    """The mean of `(outputs − targets)²` over all entries, computed in float32 or higher.

    Raises:
      ValueError: the shapes differ.

    >>> float(squared_error(np.array([1.0, 3.0]), np.array([1.0, 1.0])))
    2.0
    """
    check_array("the targets", targets, outputs.shape, float)
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    return jnp.mean((outputs - targets) ** 2)


class Task(NamedTuple):
    """What a net is asked, and how its answers are judged.

    Attributes:
      read: `(prepared inputs, labels) -> (what the net reads, targets)`, both of the examples.
      loss: `(outputs, targets) -> scalar`, the mean over the examples.
      measures: names, each with `(outputs, targets) -> float[n]`, one number for each example, of
        which trainings and evaluations report the mean.
      roots: `outputs of one example -> [rows, k, *its shape]`: vectors v with `Σ v vᵀ` the Hessian
        of the example's loss in its outputs; the rows are summed one after another.
      classes: whether labels are whole numbers from 0 to the number of outputs, one an example.
    """

    read: Callable[[Array, Array], tuple[Array, Array]]
    loss: Callable[[Array, Array], jax.Array]
    measures: tuple[tuple[str, Callable[[Array, Array], jax.Array]], ...]
    roots: Callable[[Array], jax.Array]
    classes: bool = False


def softmax_roots(logits: Array) -> jax.Array:
    """`[k, k]`: rows `√p_c (e_c - p)`, whose squares sum to `diag(p) - p pᵀ`, p the softmax.

    >>> roots = softmax_roots(np.zeros(2))
    >>> np.round(roots.T @ roots, 3).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    p = jax.nn.softmax(logits)
    return jnp.sqrt(p)[:, None] * (jnp.eye(p.size, dtype=p.dtype) - p[None])


def _rows_of_tokens(logits: Array) -> jax.Array:
    """`[t, words, t, words]`: row i has the roots of token i, divided by √t for the mean."""
    t = logits.shape[0]
    own = jnp.eye(t, dtype=logits.dtype)[:, None, :, None]
    return own * jax.vmap(softmax_roots)(logits)[:, :, None] / jnp.sqrt(t)


def _squared_roots(outputs: Array) -> jax.Array:
    """`[1, m, ...]`: those of the mean of m squares, `√(2 / m)` times each direction."""
    m = outputs.size
    return jnp.eye(m, dtype=outputs.dtype).reshape(1, m, *outputs.shape) * jnp.sqrt(2 / m)


def _per_example(values: Array) -> jax.Array:
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)


def _squares(outputs: Array, targets: Array) -> jax.Array:
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    return _per_example((outputs - targets) ** 2)


def _token_hits(logits: Array, tokens: Array) -> jax.Array:
    return _per_example(hits(*_flat(logits, tokens)).reshape(tokens.shape))


def _flat(logits: Array, tokens: Array) -> tuple[jax.Array, jax.Array]:
    return logits.reshape(-1, logits.shape[-1]), tokens.reshape(-1)


CLASSIFICATION = Task(
    read=lambda inputs, labels: (inputs, labels),
    loss=cross_entropy,
    measures=(("accuracy", hits),),
    roots=lambda logits: softmax_roots(logits)[None],
    classes=True,
)
"""Classes, int `labels[n]`: the mean cross-entropy in nats, and the accuracy."""
REGRESSION = Task(
    read=lambda inputs, labels: (inputs, labels),
    loss=squared_error,
    measures=(("squared_error", _squares),),
    roots=_squared_roots,
)
"""Numbers, float labels of the outputs' shape: the mean squared error."""
NEXT_TOKEN = Task(
    read=lambda tokens, labels: (tokens[:, :-1], tokens[:, 1:]),
    loss=lambda logits, tokens: cross_entropy(*_flat(logits, tokens)),
    measures=(("accuracy", _token_hits),),
    roots=_rows_of_tokens,
)
"""The token after each of int `inputs[n, t]`, whose labels are not read: the mean cross-entropy
`-(1 / (n (t - 1))) Σ log p(x_(i+1) | x_1 .. x_i)` in nats, and the accuracy. The model maps tokens
`[n, t - 1]` to logits `[n, t - 1, words]`; that it is causal is not checked."""


def of_task(
    task: Task,
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None = None,
) -> Loss:
    """The training loss of a task, plus `penalty(params)` if given.

    Args:
      task: what the net is asked.
      model: the net as functions.
      prepare: the inputs of the batch -> those of `task.read`.
      penalty: parameters -> a scalar added to the loss.

    Returns:
      `loss(params, stats, batch, key) -> (scalar, (stats, {"loss", and each measure}))`; the key
      feeds dropout and is consumed.

    >>> net = Model(init=None, apply=lambda params, stats, x, key, train: (x * params["w"], stats))
    >>> loss = of_task(REGRESSION, net, lambda x: x, penalty=lambda params: params["w"] ** 2)
    >>> batch = Split(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    >>> value, (stats, metrics) = loss({"w": 2.0}, {}, batch, jax.random.key(0))
    >>> float(metrics["squared_error"]), float(value)
    (4.5, 8.5)
    """

    def loss(
        params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        answers, targets, stats = _forward(task, model, prepare, params, stats, batch, key)
        value = task.loss(answers, targets)
        if penalty is not None:
            value = value + penalty(params)
        return value, (stats, {"loss": value, **_measured(task, answers, targets)})

    return loss


Outputs = Callable[[Params, Stats, Split, Key], tuple[Array, tuple[Stats, dict[str, jax.Array]]]]
"""`outputs(params, stats, batch, key) -> (outputs, (stats, measures))`, in training mode."""


def outputs(task: Task, model: Model, prepare: Callable[[Array], Array]) -> Outputs:
    """What a net answers to a batch in training mode, and the measures of it.

    Args:
      task, model, prepare: see `of_task`.

    >>> net = Model(init=None, apply=lambda params, stats, x, key, train: (x * params["w"], stats))
    >>> batch = Split(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    >>> answers, (_, measures) = outputs(REGRESSION, net, lambda x: x)({"w": 2.0}, {}, batch, None)
    >>> answers.tolist(), float(measures["squared_error"])
    ([2.0, 6.0], 4.5)
    """

    def of_batch(
        params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[Array, tuple[Stats, dict[str, jax.Array]]]:
        answers, targets, stats = _forward(task, model, prepare, params, stats, batch, key)
        return answers, (stats, _measured(task, answers, targets))

    return of_batch


def _forward(
    task: Task,
    model: Model,
    prepare: Callable[[Array], Array],
    params: Params,
    stats: Stats,
    batch: Split,
    key: Key,
) -> tuple[Array, Array, Stats]:
    """The outputs of a batch in training mode, their targets, and the statistics."""
    inputs, targets = task.read(prepare(batch.images), batch.labels)
    answers, stats = model.apply(params, stats, inputs, key, True)
    return answers, targets, stats


def _measured(task: Task, answers: Array, targets: Array) -> dict[str, jax.Array]:
    return {name: jnp.mean(of(answers, targets)) for name, of in task.measures}


def classification(
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None = None,
    smoothing: float = 0.0,
) -> Loss:
    """The training loss of a classifier, see `CLASSIFICATION` and `of_task`.

    Args:
      model, prepare, penalty: as in `of_task`.
      smoothing: of the labels, see `cross_entropy`. Evaluations never smooth.

    >>> net = Model(init=None, apply=lambda params, stats, images, key, train: (images, stats))
    >>> loss = classification(net, lambda images: images / 255)
    >>> batch = Split(np.zeros((3, 4)), np.array([0, 1, 3]))
    >>> value, (stats, metrics) = loss({}, {}, batch, jax.random.key(0))
    >>> round(float(value), 3), round(float(metrics["accuracy"]), 3)  # log 4, 1/3
    (1.386, 0.333)
    """
    smooth = CLASSIFICATION._replace(loss=partial(cross_entropy, smoothing=smoothing))
    return of_task(smooth, model, prepare, penalty)


def layer_orthogonality(kernel: Array) -> jax.Array:
    """`mean[(WᵀW − I)²]` over the entries of the Gram matrix of a layer's inputs.

    `W[units, inputs]` is the kernel in PyTorch's layout: row j holds the incoming weights of unit
    j, and a convolution `[h, w, c, filters]` is flattened to `[filters, h · w · c]`. The Gram
    matrix is thus `[inputs, inputs]`, and `WᵀW = I` would preserve the length of every input. With
    n inputs, `‖WᵀW − I‖² = ‖WWᵀ‖² − 2 ‖W‖² + n`; the smaller of the two Gram matrices is computed.
    The score is from an undergraduate thesis on annealing over masks, 2020.

    Args:
      kernel: masked weights, `[..., inputs, units]`.

    >>> float(layer_orthogonality(np.eye(2))), float(layer_orthogonality(np.ones((2, 2))))
    (0.0, 2.5)
    """
    if jnp.ndim(kernel) < 2:
        check_array("the kernel", kernel, ("inputs", "units"))
    w = kernel.reshape(-1, kernel.shape[-1])  # [inputs, units]
    inputs = w.shape[0]
    gram = w @ w.T if inputs < w.shape[1] else w.T @ w
    return (jnp.sum(gram**2) - 2 * jnp.sum(w**2) + inputs) / inputs**2


def orthogonality(kernels: Sequence[Array]) -> jax.Array:
    """The sum of `layer_orthogonality` over masked kernels; lower is closer to orthogonal.

    >>> float(orthogonality([np.eye(2), np.ones((2, 2))]))
    2.5
    """
    return jnp.sum(jnp.stack([layer_orthogonality(kernel) for kernel in kernels]))
