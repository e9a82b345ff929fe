"""Cross-entropy, accuracy, and the loss functions made of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtickets.types import Array, Key, Loss, Model, Params, Split, Stats


def cross_entropy(logits: Array, labels: Array) -> jax.Array:
    """Mean softmax cross-entropy in nats of `logits[n, classes]` against int `labels[n]`."""
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels))


def accuracy(logits: Array, labels: Array) -> jax.Array:
    """The fraction of `labels[n]` at which `logits[n, classes]` peak, in [0, 1]."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)


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
