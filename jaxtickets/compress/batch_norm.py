"""Batch-norm statistics, estimated again for a net whose weights have changed.

After weights are removed or rewritten, the means and variances that a net's batch norms recorded in
training no longer describe their inputs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.types import Array, Key, Model, Params, Stats


def reestimate(
    model: Model,
    params: Params,
    stats: Stats,
    batches: Array,
    prepare: Callable[[Array], Array] | None = None,
    key: Key | None = None,
) -> Stats:
    """The mean over the batches of the statistics of each batch, in training mode.

    A batch norm with momentum m turns its statistics s into `m s + (1 − m) b`. Batch norms
    normalise by the batch's own b in training mode, so one pass at s = 0 gives `(1 − m) b`, and its
    derivative along ones gives m. The old statistics and the momentum have no effect on the result.
    The variance is the mean of the variances within batches. Izmailov et al., "Averaging weights
    leads to wider optima and better generalization", 2018, section 3.2, estimate them so.

    Args:
      model: the net.
      params: its parameters.
      stats: its statistics, for their structure and dtypes; `{}` is returned as it is.
      batches: `[batches, n, ...]`, images of batches of equal size.
      prepare: the normalisation of a batch's images; None: they are float and normalised.
      key: consumed by dropout, if the net has it.

    Raises:
      ValueError: there are no batches.

    >>> def apply(params, stats, images, key, train):  # a running mean
    ...     return images, {"mean": 0.9 * stats["mean"] + 0.1 * images.mean()}
    >>> batches = jnp.array([[1.0, 3.0], [5.0, 7.0]])
    >>> stats = reestimate(Model(None, apply), {}, {"mean": jnp.array(100.0)}, batches)
    >>> round(float(stats["mean"]), 3)
    4.0
    """
    if not jax.tree.leaves(stats):
        return stats
    number = jnp.shape(batches)[0] if jnp.ndim(batches) > 1 else 0
    if number == 0:
        raise ValueError("batch-norm statistics need at least one batch of images")
    zeros, ones = (jax.tree.map(fill, stats) for fill in (jnp.zeros_like, jnp.ones_like))

    def add(total: Stats, indexed: tuple[Array, Array]) -> tuple[Stats, None]:
        index, images = indexed
        images = images if prepare is None else prepare(images)
        batch_key = None if key is None else jax.random.fold_in(key, index)

        def update(old: Stats) -> Stats:
            return model.apply(params, old, images, batch_key, True)[1]

        moved, momentum = jax.jvp(update, (zeros,), (ones,))
        return jax.tree.map(
            lambda t, b, m: (t + b / (1 - m) / number).astype(t.dtype), total, moved, momentum
        ), None

    return lax.scan(add, zeros, (jnp.arange(number), batches))[0]
