"""The wiring of chains: which layers compute a group of units, and which layer reads it."""

import re
from collections.abc import Sequence
from itertools import pairwise

import jax
from flax import linen as nn

from jaxtickets.nets.functional import functional
from jaxtickets.nets.registry import name_of
from jaxtickets.types import Feed, Params, Units, Wiring

CHAINED = re.compile(r"(conv|fc)\d+|out")
"""The names of a chain's layers that have kernels."""


def wiring(net: nn.Module, shape: Sequence[int]) -> Wiring:
    """The net's groups of units, for images of `shape` `(h, w, c)`.

    The rule covers chains `conv1`, `conv2`, ..., `fc1`, `fc2`, ..., `out`, in which the batch norm
    `bn1` may follow `conv1`, and `fc1_bn` `fc1`. A group is the units of one layer, read by the
    next. A flatten between them repeats the group once for each pixel, with the unit index varying
    fastest. For a net of the registry that is not a chain, such as one with shortcuts, the result
    is `()`.

    Raises:
      ValueError: the net is not in the registry, or the images are too small for it.
    """
    name_of(net)
    params, _ = jax.eval_shape(functional(net, shape).init, jax.random.key(0))
    layers = [layer for layer in params if "kernel" in params[layer]]
    if not all(CHAINED.fullmatch(layer) for layer in layers):
        return ()
    layers.sort(key=_place)
    return tuple(_units(params, layer, reader) for layer, reader in pairwise(layers))


def _place(layer: str) -> tuple[str, int]:
    """The sort key of layers in forward order: conv before fc before out, then by number."""
    stem = layer.rstrip("0123456789")
    return stem, int(layer.removeprefix(stem) or 0)


def _units(params: Params, layer: str, reader: str) -> Units:
    """The units of `layer`, read by `reader`."""
    size = params[layer]["kernel"].shape[-1]
    norm = layer.replace("conv", "bn") if layer.startswith("conv") else f"{layer}_bn"
    return Units(
        name=layer,
        size=size,
        producers=(layer,),
        norms=(norm,) if norm in params else (),
        consumers=(Feed(reader, params[reader]["kernel"].shape[-2] // size),),
    )
