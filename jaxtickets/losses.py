"""Cross-entropy, squared error, accuracy, losses of them, and orthogonality of weights."""

from collections.abc import Callable, Sequence

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


def accuracy(logits: Array, labels: Array) -> jax.Array:
    """The fraction of `labels[n]` that are the argmax of `logits[n, classes]`, in [0, 1].

    NaN if a label is not one of the classes.

    Raises:
      ValueError: logits or labels have another shape or type, or a label is not one of the classes
        (the latter is not detected under tracing).

    >>> float(accuracy(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0])))
    0.5
    """
    _check_shapes(logits, labels)
    check_labels(labels, logits.shape[-1])
    hits = jnp.argmax(logits, axis=-1) == labels
    return jnp.mean(jnp.where(_is_class(labels, logits), hits, jnp.nan))


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


def classification(
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None = None,
    smoothing: float = 0.0,
) -> Loss:
    """The training loss of a classifier: mean cross-entropy, plus `penalty(params)` if given.

    Args:
      model: the net as functions.
      prepare: uint8 images -> normalised float images.
      penalty: parameters -> a scalar added to the loss.
      smoothing: of the labels, see `cross_entropy`. Evaluations never smooth.

    Returns:
      `loss(params, stats, batch, key) -> (scalar, (stats, {"loss", "accuracy"}))`; the key feeds
      dropout and is consumed.

    >>> net = Model(init=None, apply=lambda params, stats, images, key, train: (images, stats))
    >>> loss = classification(net, lambda images: images / 255)
    >>> batch = Split(np.zeros((3, 4)), np.array([0, 1, 3]))
    >>> value, (stats, metrics) = loss({}, {}, batch, jax.random.key(0))
    >>> round(float(value), 3), round(float(metrics["accuracy"]), 3)  # log 4, 1/3
    (1.386, 0.333)
    """

    def loss(
        params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        logits, stats = model.apply(params, stats, prepare(batch.images), key, True)
        value = cross_entropy(logits, batch.labels, smoothing)
        if penalty is not None:
            value = value + penalty(params)
        return value, (stats, {"loss": value, "accuracy": accuracy(logits, batch.labels)})

    return loss


def regression(
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None = None,
) -> Loss:
    """The training loss of a regression: the mean squared error, plus `penalty(params)` if given.

    Args:
      model: the net as functions.
      prepare: the inputs of the batch -> those of the net.
      penalty: parameters -> a scalar added to the loss.

    Returns:
      `loss(params, stats, batch, key) -> (scalar, (stats, {"loss", "squared_error"}))`; the targets
      `batch.labels` are float, of the outputs' shape; the key feeds dropout and is consumed.

    Raises:
      ValueError: from `loss`: the targets have another shape than the outputs.

    >>> net = Model(init=None, apply=lambda params, stats, x, key, train: (x * params["w"], stats))
    >>> loss = regression(net, lambda x: x, penalty=lambda params: params["w"] ** 2)
    >>> batch = Split(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    >>> value, (stats, metrics) = loss({"w": 2.0}, {}, batch, jax.random.key(0))
    >>> float(metrics["squared_error"]), float(value)
    (4.5, 8.5)
    """

    def loss(
        params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        outputs, stats = model.apply(params, stats, prepare(batch.images), key, True)
        error = squared_error(outputs, batch.labels)
        value = error if penalty is None else error + penalty(params)
        return value, (stats, {"loss": value, "squared_error": error})

    return loss


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


def next_token(
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None = None,
) -> Loss:
    """The training loss of a language model: mean cross-entropy of the token after each, in nats.

    `−(1/(n (t − 1))) Σ log p(x_(i+1) | x_1 .. x_i)`, plus `penalty(params)` if given. The model
    must be causal, which is not checked.

    Args:
      model: the net as functions; it maps tokens `[n, t - 1]` to logits `[n, t - 1, words]`.
      prepare: the inputs of the batch -> int tokens `[n, t]`.
      penalty: parameters -> a scalar added to the loss.

    Returns:
      `loss(params, stats, batch, key) -> (scalar, (stats, {"loss", "accuracy"}))`; `batch.labels`
      is not read; the key feeds dropout and is consumed.

    >>> repeat = lambda params, stats, tokens, *_: (jax.nn.one_hot(tokens, 3), stats)
    >>> loss = next_token(Model(init=None, apply=repeat), lambda tokens: tokens)
    >>> batch = Split(np.array([[1, 1, 2, 2, 0]]), None)
    >>> value, (stats, metrics) = loss({}, {}, batch, jax.random.key(0))
    >>> float(metrics["accuracy"])
    0.5
    """

    def loss(
        params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        tokens = prepare(batch.images)
        logits, stats = model.apply(params, stats, tokens[:, :-1], key, True)
        logits, labels = logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1)
        value = cross_entropy(logits, labels)
        if penalty is not None:
            value = value + penalty(params)
        return value, (stats, {"loss": value, "accuracy": accuracy(logits, labels)})

    return loss


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
