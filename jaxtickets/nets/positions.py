"""How often a net uses each of its weights."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.nets.functional import functional, mode


def positions(net: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Layer with a kernel -> the number of times that an image uses each weight: `h · w`, or 1.

    A weight's multiply-adds an image are its positions.

    Args:
      net: any flax module whose layers with kernels are its own.
      shape: `(h, w, c)` of the images.
    """
    model = functional(net, shape)
    params, stats = jax.eval_shape(model.init, jax.random.key(0))

    def outputs(params: dict, stats: dict) -> dict:
        variables = {"params": params, "batch_stats": stats}
        images = jnp.zeros((1, *shape))
        how = mode(net, False)
        seen = net.apply(variables, images, **how, capture_intermediates=True)[1]
        return {name: seen["intermediates"][name]["__call__"][0] for name in layers}

    layers = [name for name in params if "kernel" in params[name]]
    found = jax.eval_shape(outputs, params, stats)
    return {name: out.size // out.shape[-1] for name, out in found.items()}
