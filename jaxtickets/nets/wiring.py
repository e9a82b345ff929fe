"""The wiring of chains: which layers compute a group of units, and which layer reads it.

A net is a chain if each layer reads only the layer before it. A chain's wiring follows from the
names of its layers, which are a convention that a new chain must keep:

- the layers with kernels are `conv1`, `conv2`, ..., then `fc1`, `fc2`, ..., then `out`, numbered in
  the order of the forward pass;
- a batch norm after `conv1` is called `bn1`, one after `fc1` is called `fc1_bn`.

A net that is not a chain must give at least one layer with a kernel another name, such as
`stage1_block1_conv1`; only `compress.graph.trace` knows its wiring then.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from flax import linen as nn

from jaxtickets.nets.functional import functional, init_shapes
from jaxtickets.nets.registry import name_of
from jaxtickets.types import Feed, Params, Units, Wiring

CHAINED = re.compile(r"(conv|fc)\d+|out")
"""The names of the layers with kernels in a chain; any other name means that a net is no chain."""


def wiring(net: nn.Module, shape: Sequence[int]) -> Wiring:
    """The net's groups of units, for images of `shape` `(h, w, c)`.

    A group is the units of one layer, which the next layer reads. A flatten between them repeats
    the group once for each pixel, with the unit index varying fastest. For a net of the registry
    that is not a chain, such as one with shortcuts, the result is `()`.

    Raises:
      ValueError: the net is not in the registry, or the images are too small for it.

    >>> from jaxtickets.nets import make
    >>> groups = wiring(make("lenet5", widths=(2, 3, 4)), (28, 28, 1))
    >>> [(group.name, group.size, group.consumers) for group in groups]
    [('conv1', 2, (Feed(layer='conv2', repeat=1),)),
     ('conv2', 3, (Feed(layer='fc1', repeat=16),)),
     ('fc1', 4, (Feed(layer='out', repeat=1),))]
    """
    name_of(net)
    params, _ = init_shapes(functional(net, shape))
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
