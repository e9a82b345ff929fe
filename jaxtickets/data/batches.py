"""Batches of examples: random orders without replacement, one epoch at a time."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxtickets.data.errors import DataError


def epoch(key: jax.Array, n: int, batch_size: int) -> jax.Array:
    """The batches of one epoch; the key is consumed.

    The last `n % batch_size` examples of the random order do not fill a batch and are dropped; each
    epoch drops other examples.

    Args:
      key: consumed.
      n: the number of examples, static.
      batch_size: the number of examples in a batch, static.

    Returns:
      Indices int32`[n // batch_size, batch_size]`, all different.

    Raises:
      DataError: there is no full batch.

    >>> batches = epoch(jax.random.key(0), n=7, batch_size=3)
    >>> batches.shape, len(set(batches.ravel().tolist()))
    ((2, 3), 6)
    """
    steps = _steps_per_epoch(n, batch_size)
    order = jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))
    return order[: steps * batch_size].reshape(steps, batch_size)


@partial(jax.jit, static_argnames=("steps", "n", "batch_size"))
def stream(
    key: jax.Array, start: jax.Array | int, steps: int, n: int, batch_size: int
) -> jax.Array:
    """The batches of the global steps `start .. start + steps - 1`.

    Step `t` reads row `t mod p` of `epoch(fold_in(key, t // p))`, with `p = n // batch_size`: a
    pure function of the step, so that the batches do not depend on how a run is cut into chunks.

    The cost is one permutation for each epoch that the steps touch (22 ms for 55,000 examples on a
    CPU core), so chunks should be long.

    Args:
      key: the same for all chunks; it is only folded.
      start: the first step, may be traced.
      steps: the number of steps, static.
      n: the number of examples, static.
      batch_size: the number of examples in a batch, static.

    Returns:
      Indices int32`[steps, batch_size]`.

    Raises:
      DataError: there is no full batch.

    >>> batches = np.asarray(stream(jax.random.key(0), start=0, steps=4, n=4, batch_size=2))
    >>> [sorted(epoch.ravel().tolist()) for epoch in np.split(batches, 2)]
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    per_epoch = _steps_per_epoch(n, batch_size)
    first, offset = jnp.divmod(start, per_epoch)
    last = (start + steps - 1) // per_epoch

    def order(number: jax.Array) -> jax.Array:
        return epoch(jax.random.fold_in(key, number), n, batch_size)

    def order_if_touched(number: jax.Array) -> jax.Array:
        nothing = jnp.zeros((per_epoch, batch_size), jnp.int32)
        return jax.lax.cond(number <= last, order, lambda _: nothing, number)

    # The worst start is an epoch's last step: one step of that epoch, then the others.
    most = 1 + -(-(steps - 1) // per_epoch)
    orders = jax.lax.map(order_if_touched, first + jnp.arange(most))
    return jax.lax.dynamic_slice_in_dim(orders.reshape(-1, batch_size), offset, steps)


def _steps_per_epoch(n: int, batch_size: int) -> int:
    if not 1 <= batch_size <= n:
        raise DataError(f"batch_size={batch_size}: must be from 1 to the {n} examples")
    return n // batch_size


def whole(images: int, batch_size: int) -> tuple[int, int]:
    """`(batches, size)`: equal batches of at most `batch_size` that use at most `images` images.

    Either full batches, or the fewest equal batches that could hold all images: whichever leaves
    out fewer images. A batch holds a single image only if `images` or `batch_size` is 1, because
    batch norm over one example has no gradient. Applied to the product of its result, the function
    returns the same batches.

    >>> whole(100, batch_size=32), whole(64, batch_size=32)
    ((4, 25), (2, 32))
    """
    fewest = -(-images // batch_size)
    ways = (images // batch_size, batch_size), (fewest, images // fewest)
    return max(ways, key=lambda way: way[0] * way[1])
