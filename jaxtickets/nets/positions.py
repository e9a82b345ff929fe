"""How often a net uses each of its weights, and so what an image costs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.nets.functional import mode
from jaxtickets.types import Key


def positions(net: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Layer with a kernel -> the number of times that an image uses each weight: `h · w`, or 1.

    A weight's multiply-adds an image are its positions. Found by tracing: nothing is computed. A
    layer within a module has a path, `block/conv`; the positions of one that is called several
    times add up.

    Args:
      net: any flax module whose kernels belong to `nn.Conv` or `nn.Dense`, of any stride and any
        groups, or to other layers that use each weight once for each position of their output.
      shape: `(h, w, c)` of the images.
    """
    return {name: uses for name, (uses, _) in _layers(net, shape).items()}


def multiply_adds(net: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """Layer with a kernel -> the multiply-adds of one image in it: positions times weights.

    Zeros around the images count, as they do in published numbers; biases, batch norms,
    activations and pools don't. Twice the sum is the forward pass's floating-point operations.

    Args:
      net: as for `positions`.
      shape: `(h, w, c)` of the images.
    """
    return {name: uses * size for name, (uses, size) in _layers(net, shape).items()}


def _layers(net: nn.Module, shape: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Layer with a kernel -> its positions and its weights, by shapes alone."""

    def traced(key: Key) -> Any:
        how: dict[str, Any] = {"mutable": True, "capture_intermediates": True}
        return net.init(key, jnp.zeros((1, *shape)), **how, **mode(net, False))

    found = jax.eval_shape(traced, jax.random.key(0))
    layers = {}
    for path, kernel in jax.tree.leaves_with_path(found["params"]):
        *layer, leaf = (step.key for step in path)
        if leaf == "kernel":
            outs = _at(found["intermediates"], layer)["__call__"]
            uses = sum(out.size // out.shape[-1] for out in outs)
            layers["/".join(layer)] = uses, kernel.size
    return layers


def _at(tree: Any, path: Sequence[str]) -> Any:
    """The branch of nested dicts at `path`."""
    for step in path:
        tree = tree[step]
    return tree
