"""VGG-11, VGG-16 and VGG-19 with batch norm.

Simonyan and Zisserman 2015, table 1, columns A, D and E: padded 3x3 convolutions in five groups of
64, 128, 256, 512 and 512 filters, each followed by batch norm and ReLU, a 2x2 max-pool after each
group. The head depends on the attribute `form`:

- 'large', as published: the fifth pool, two dense layers of 4,096 units with dropout, the output.
  The number of dense inputs follows the image size: 7 x 7 x 512 at 224 pixels.
- 'small', as in network slimming (Liu et al. 2017), OpenLTH and others on CIFAR: no fifth pool, the
  mean over the remaining pixels, the output.
"""

from collections.abc import Sequence
from functools import partial
from itertools import count, islice
from typing import ClassVar, Protocol

import jax
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool2
from jaxtickets.nets.layers import (
    BlockSettings,
    average,
    batch_norm,
    block,
    conv,
    dense,
    flatten,
    output,
)

FILTERS = (64, 128, 256, 512, 512)
VGG_11, VGG_16, VGG_19 = (1, 1, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


class VGGSettings(BlockSettings, Protocol):
    """The attributes that the three nets share."""

    form: str
    widths: tuple[int, ...]
    classes: int
    dropout: float


def _published(layers: Sequence[int], form: str) -> tuple[int, ...]:
    """The widths of the paper, given the number of convolutions in each group."""
    filters = [width for width, many in zip(FILTERS, layers, strict=True) for _ in range(many)]
    return (*filters, 4096, 4096) if form == "large" else tuple(filters)


def _logits(net: VGGSettings, images: jax.Array, train: bool, layers: Sequence[int]) -> jax.Array:
    """The forward pass of all three: `[n, h, w, c]` -> `[n, classes]`."""
    widths = iter(net.widths)
    x, numbers = images, count(1)
    for group, many in enumerate(layers, 1):
        sizes = [(layer, next(widths)) for layer in islice(numbers, many)]
        pooled = group < len(layers) or net.form == "large"
        x = block(net, partial(_convolutions, sizes=sizes, pooled=pooled, train=train), x)
    if net.form == "small":
        return output(net, average(x))
    x = flatten(x)
    for name in ("fc1", "fc2"):
        x = nn.relu(dense(net, name, x, next(widths)))
        x = nn.Dropout(net.dropout)(x, deterministic=not train)
    return output(net, x)


def _convolutions(
    net: VGGSettings,
    images: jax.Array,
    sizes: Sequence[tuple[int, int]],
    pooled: bool,
    train: bool,
) -> jax.Array:
    """A group of convolutions, `(number, filters)` each, and the pool after it."""
    x = images
    for layer, filters in sizes:
        x = conv(net, f"conv{layer}", x, filters, 3, padding=1)
        x = nn.relu(batch_norm(f"bn{layer}", x, train))
    return max_pool2(x) if pooled else x


class VGG11(nn.Module):
    """Eight convolutions: 9,231,114 parameters on CIFAR-10, 132,868,840 on ImageNet.

    Attributes:
      form: 'small' or 'large', see the module.
      widths: filters of `conv1`, `conv2`, ...; in the large form, then units of `fc1` and `fc2`.
        Empty: the published ones.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      remat: whether the backward pass recomputes the activations of each group.
      dropout: the probability that a unit of `fc1` or `fc2` is dropped in training.
    """

    form: str = "small"
    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = ()
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Fills in the published widths."""
        self.widths = self.widths or _published(VGG_11, self.form)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout' if large."""
        return _logits(self, images, train, VGG_11)


class VGG16(nn.Module):
    """Thirteen convolutions: 14,728,266 parameters on CIFAR-10, 138,365,992 on ImageNet.

    Attributes: those of `VGG11`.
    """

    form: str = "small"
    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = ()
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Fills in the published widths."""
        self.widths = self.widths or _published(VGG_16, self.form)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout' if large."""
        return _logits(self, images, train, VGG_16)


class VGG19(nn.Module):
    """Sixteen convolutions: 20,040,522 parameters on CIFAR-10, 143,678,248 on ImageNet.

    Attributes: those of `VGG11`.
    """

    form: str = "small"
    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = ()
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Fills in the published widths."""
        self.widths = self.widths or _published(VGG_19, self.form)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout' if large."""
        return _logits(self, images, train, VGG_19)
