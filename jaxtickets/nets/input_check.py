"""Checks that a net fits a data set, before any work and from shapes alone."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import count

import jax
from flax import linen as nn

from jaxtickets.nets.functional import functional, init_shapes
from jaxtickets.nets.layers import ImageTooSmallError
from jaxtickets.nets.registry import NETS, name_of


def check_fits(net: nn.Module, shape: Sequence[int], classes: int) -> None:
    """Raises ValueError unless the net maps images `[n, h, w, c]` to logits `[n, classes]`.

    Args:
      net: a net of the registry, or any flax module.
      shape: `(h, w, c)` of the images.
      classes: the number of classes of the data.

    Raises:
      ValueError: in one line: what the net needs, and what the data has.

    >>> from jaxtickets.nets import make
    >>> check_fits(make("lenet5"), (28, 28, 1), classes=10)
    >>> check_fits(make("lenet5"), (8, 8, 1), classes=10)
    Traceback (most recent call last):
    ValueError: lenet5 needs images of at least 16x16 pixels, not 8x8
    """
    name = name_of(net) if type(net) in NETS.values() else type(net).__name__
    height, width, channels = shape
    try:
        logits = _logits(net, shape)
    except ImageTooSmallError:
        enough = next(2**n for n in count() if _leaves_pixels(net, 2**n, channels))
        below = range(1, enough)
        least = 1 + bisect_left(below, True, key=lambda size: _leaves_pixels(net, size, channels))
        raise ValueError(
            f"{name} needs images of at least {least}x{least} pixels, not {height}x{width}"
        ) from None
    if logits != (1, classes):
        raise ValueError(f"{name} maps one image to {logits}, the data has {classes} classes")


def _logits(net: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of the net's output for one image."""
    model = functional(net, shape)
    image = jax.ShapeDtypeStruct((1, *shape), "float32")
    outputs, _ = jax.eval_shape(model.apply, *init_shapes(model), image)
    return outputs.shape


def _leaves_pixels(net: nn.Module, size: int, channels: int) -> bool:
    """Whether pixels remain of square images of this size after the convolutions and pools."""
    try:
        _logits(net, (size, size, channels))
    except ImageTooSmallError:
        return False
    return True
