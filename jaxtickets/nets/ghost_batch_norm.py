"""Batch norm that sees, in training, a part of the batch alone.

Hoffer et al. 2017, "Train longer, generalize better", arXiv:1705.08741, algorithm 1.
"""

import math

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key, Model, Params, Stats


def ghost_batch_norm(model: Model, parts: int) -> Model:
    """The same net, each of whose batch norms sees equal parts of a training batch apart.

    In training, outputs are those of the parts, each normalised by its own statistics, and the
    running statistics are the means of those that the parts would leave, where the paper moves them
    part by part. Evaluation doesn't change. Where devices share a batch (`runs`, mode `data`) and
    `parts` is their number or a multiple of it, no layer waits for another device.

    Args:
      model: the net; its batches are arrays, or PyTrees of them, with the examples in front.
      parts: 1 or more; 1 leaves the net as it is. Of a batch that can't be divided so, the parts
        are as many as the greatest common divisor of `parts` and its size.

    Raises:
      ValueError: `parts` is below 1.

    >>> from flax import linen as nn
    >>> from jaxtickets.nets import functional
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, train):
    ...         return nn.BatchNorm(use_running_average=not train, epsilon=0, momentum=0.5)(x)
    >>> model = ghost_batch_norm(functional(Net(), (1,)), parts=2)
    >>> params, stats = model.init(jax.random.key(0))
    >>> batch = np.array([[1.0], [3.0], [10.0], [14.0]], np.float32)
    >>> outputs, stats = model.apply(params, stats, batch, None, True)
    >>> outputs.tolist(), stats["BatchNorm_0"]["mean"].tolist()
    ([[-1.0], [1.0], [-1.0], [1.0]], [3.5])
    """
    if parts < 1:
        raise ValueError(f"parts={parts}: must be 1 or more")
    if parts == 1:
        return model

    def apply(
        params: Params, stats: Stats, images: Array, key: Key | None = None, train: bool = False
    ) -> tuple[jax.Array, Stats]:
        if not train:
            return model.apply(params, stats, images, key, train)
        size = jax.tree.leaves(images)[0].shape[0]
        each = math.gcd(parts, size)

        def one(images: Array, key: Key | None) -> tuple[jax.Array, Stats]:
            return model.apply(params, stats, images, key, train)

        pieces = jax.tree.map(lambda a: a.reshape(each, size // each, *a.shape[1:]), images)
        keys = None if key is None else jax.random.split(key, each)
        outputs, moved = jax.vmap(one)(pieces, keys)
        whole = jax.tree.map(lambda a: a.reshape(size, *a.shape[2:]), outputs)
        return whole, jax.tree.map(lambda leaf: jnp.mean(leaf, 0), moved)

    return Model(model.init, apply)
