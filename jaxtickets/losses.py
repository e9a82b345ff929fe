"""Cross-entropy, accuracy, the loss functions made of them, and orthogonality of weights."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets.types import Array, Key, Loss, Model, Params, Split, Stats


def cross_entropy(logits: Array, labels: Array) -> jax.Array:
    """Mean softmax cross-entropy in nats of `logits[n, classes]` against int `labels[n]`.

    In float32 at least. NaN, and so is its gradient, where a label is none of the classes.

    Raises:
      ValueError: a label is none of the classes (not seen under tracing).
    """
    check_labels(labels, logits.shape[-1])
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    nats = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    # a product and not a selection, whose gradient would be that of the other examples
    return jnp.mean(nats * jnp.where(_is_class(labels, logits), 1.0, jnp.nan).astype(nats.dtype))


def accuracy(logits: Array, labels: Array) -> jax.Array:
    """The fraction of `labels[n]` at which `logits[n, classes]` peak, in [0, 1].

    NaN where a label is none of the classes.

    Raises:
      ValueError: a label is none of the classes (not seen under tracing).
    """
    check_labels(labels, logits.shape[-1])
    hits = jnp.argmax(logits, axis=-1) == labels
    return jnp.mean(jnp.where(_is_class(labels, logits), hits, jnp.nan))


def check_labels(labels: Array, classes: int) -> None:
    """Raises ValueError unless all of int `labels[n]` are from 0 to `classes - 1`.

    Labels that are traced, or on another process' devices, aren't seen.
    """
    if isinstance(labels, jax.core.Tracer) or not getattr(labels, "is_fully_addressable", True):
        return
    values = np.asarray(labels)
    wrong = values[(values < 0) | (values >= classes)]
    if wrong.size:
        raise ValueError(
            f"a label is {wrong[0]}: labels must be whole numbers from 0 to {classes - 1}, since "
            f"the net has {classes} classes"
        )


def _is_class(labels: Array, logits: Array) -> jax.Array:
    return (labels >= 0) & (labels < logits.shape[-1])


def error_rate(logits: Array, labels: Array) -> jax.Array:
    """One minus accuracy, in [0, 1]."""
    return 1.0 - accuracy(logits, labels)


def classification(
    model: Model,
    prepare: Callable[[Array], Array],
    penalty: Callable[[Params], Array] | None = None,
) -> Loss:
    """The training loss of a classifier: mean cross-entropy, plus `penalty(params)` if given.

    Args:
      model: the net as functions.
      prepare: uint8 images -> normalised float images.
      penalty: parameters -> scalar that is added.

    Returns:
      `loss(params, stats, batch, key) -> (scalar, (stats, {"loss", "accuracy"}))`; the key feeds
      dropout and is consumed.
    """

    def loss(
        params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        logits, stats = model.apply(params, stats, prepare(batch.images), key, True)
        value = cross_entropy(logits, batch.labels)
        if penalty is not None:
            value = value + penalty(params)
        return value, (stats, {"loss": value, "accuracy": accuracy(logits, batch.labels)})

    return loss


def layer_orthogonality(kernel: Array) -> jax.Array:
    """`mean[(WᵀW − I)²]` over the entries of the Gram matrix of a layer's inputs.

    `W[units, inputs]` holds the kernel as PyTorch has it: row j is unit j's incoming weights, and a
    convolution `[h, w, c, filters]` is flattened to `[filters, h · w · c]`. So the Gram matrix is
    `[inputs, inputs]`, and `WᵀW = I` would keep the length of every input. With n inputs,
    `‖WᵀW − I‖² = ‖WWᵀ‖² − 2 ‖W‖² + n`, of which the smaller Gram matrix is computed. The score of
    an undergraduate thesis on annealing over masks, 2020.

    Args:
      kernel: masked weights, `[..., inputs, units]`.
    """
    w = kernel.reshape(-1, kernel.shape[-1])  # [inputs, units]
    inputs = w.shape[0]
    gram = w @ w.T if inputs < w.shape[1] else w.T @ w
    return (jnp.sum(gram**2) - 2 * jnp.sum(w**2) + inputs) / inputs**2


def orthogonality(kernels: Sequence[Array]) -> jax.Array:
    """The sum of `layer_orthogonality` over masked kernels; lower is nearer to orthogonal."""
    return jnp.sum(jnp.stack([layer_orthogonality(kernel) for kernel in kernels]))
