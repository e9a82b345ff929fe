"""ResNets of basic blocks: 20, 32, 56 and 110 layers for CIFAR, 18 and 34 for ImageNet.

He et al. 2016, "Deep residual learning": a stem, then stages of blocks. A block has two 3x3
convolutions, the first with the block's *inner* width, the second with the width of the residual
*stream*, to which all blocks of a stage add. The first block of each later stage has stride 2, and
a shortcut that gives the stream its new width:

- 'pad', the paper's option A, for CIFAR: every other pixel, with channels of zeros after the old
  ones. It has no parameters and gives the published parameter counts.
- 'conv', option B, for ImageNet: a 1x1 convolution of stride 2 and a batch norm.

`widths` has the groups of channels in forward order: for each stage the stream (the first is the
stem's), then the inner width of each block. With 'pad' the stream may not become narrower.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool
from jaxtickets.nets.layers import BlockSettings, average, batch_norm, block, conv, output

SHORTCUTS = ("pad", "conv")


class ResNetSettings(BlockSettings, Protocol):
    """The attributes that all ResNets here share."""

    widths: tuple[int, ...]
    classes: int
    shortcut: str


def _published(streams: Sequence[int], blocks: Sequence[int]) -> tuple[int, ...]:
    """The paper's widths: in each stage, all widths equal the stream's."""
    pairs = zip(streams, blocks, strict=True)
    return tuple(stream for stream, count in pairs for _ in range(1 + count))


def _logits(
    net: ResNetSettings,
    images: jax.Array,
    train: bool,
    blocks: Sequence[int],
    form: str = "small",
) -> jax.Array:
    """The forward pass of all ResNets here: `[n, h, w, c]` -> `[n, classes]`.

    Args:
      net: the net, for its attributes.
      images: `[n, h, w, c]`.
      train: whether the net is in training mode.
      blocks: the number of blocks in each stage.
      form: the form of the stem: 'small', a 3x3 convolution; 'large', a 7x7 convolution of stride 2
        and a max-pool of stride 2.
    """
    widths = iter(net.widths)
    stream = next(widths)
    size, stride = (7, 2) if form == "large" else (3, 1)
    x = conv(net, "stem_conv", images, stream, size, stride=stride, padding=size // 2, bias=False)
    x = nn.relu(batch_norm("stem_bn", x, train))
    if form == "large":
        x = max_pool(x, 3, 2, 1)
    for stage, count in enumerate(blocks, 1):
        for number in range(1, 1 + count):
            halves = stage > 1 and number == 1
            stream = next(widths) if halves else stream
            layers = partial(
                _basic_block,
                name=f"stage{stage}_block{number}",
                inner=next(widths),
                stream=stream,
                halves=halves,
                train=train,
            )
            x = block(net, layers, x)
    return output(net, average(x))


def _basic_block(
    net: ResNetSettings,
    images: jax.Array,
    name: str,
    inner: int,
    stream: int,
    halves: bool,
    train: bool,
) -> jax.Array:
    """Two convolutions and the shortcut around them: `[n, h, w, c]` -> `[n, h', w', stream]`."""
    x, stride = images, 2 if halves else 1
    short = _shortcut(net, name, x, stream, train) if halves else x
    y = conv(net, f"{name}_conv1", x, inner, 3, stride=stride, padding=1, bias=False)
    y = nn.relu(batch_norm(f"{name}_bn1", y, train))
    y = conv(net, f"{name}_conv2", y, stream, 3, padding=1, bias=False)
    return nn.relu(batch_norm(f"{name}_bn2", y, train) + short)


def _shortcut(
    net: ResNetSettings, name: str, images: jax.Array, stream: int, train: bool
) -> jax.Array:
    """The shortcut to the next stage: `[n, h, w, c]` -> `[n, ceil(h / 2), ceil(w / 2), stream]`.

    Raises:
      ValueError: a padded shortcut would have to narrow the stream.
    """
    if net.shortcut == "conv":
        x = conv(net, f"{name}_shortcut_conv", images, stream, 1, stride=2, bias=False)
        return batch_norm(f"{name}_shortcut_bn", x, train)
    more = stream - images.shape[-1]
    if more < 0:
        raise ValueError(
            f"a padded shortcut can't narrow {images.shape[-1]} channels to {stream}: see {name}"
        )
    return jnp.pad(images[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, more)))


class ResNet20(nn.Module):
    """Three stages of three blocks: 269,722 parameters on CIFAR-10.

    Attributes:
      widths: of the groups of channels, see the module.
      classes: the number of logits.
      use_bias: whether the output has a bias; a batch norm follows each convolution.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      remat: whether the backward pass recomputes the activations of each block.
      shortcut: 'pad' or 'conv', see the module.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = _published((16, 32, 64), (3, 3, 3))
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    shortcut: str = "pad"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`."""
        return _logits(self, images, train, (3, 3, 3))


class ResNet32(nn.Module):
    """Three stages of five blocks: 464,154 parameters on CIFAR-10.

    Attributes: those of `ResNet20`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = _published((16, 32, 64), (5, 5, 5))
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    shortcut: str = "pad"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`."""
        return _logits(self, images, train, (5, 5, 5))


class ResNet56(nn.Module):
    """Three stages of nine blocks: 853,018 parameters on CIFAR-10.

    Attributes: those of `ResNet20`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = _published((16, 32, 64), (9, 9, 9))
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    shortcut: str = "pad"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`."""
        return _logits(self, images, train, (9, 9, 9))


class ResNet110(nn.Module):
    """Three stages of 18 blocks: 1,727,962 parameters on CIFAR-10.

    Attributes: those of `ResNet20`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = _published((16, 32, 64), (18, 18, 18))
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    shortcut: str = "pad"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`."""
        return _logits(self, images, train, (18, 18, 18))


class ResNet18(nn.Module):
    """Stages of 2, 2, 2 and 2 blocks: 11,689,512 parameters on ImageNet.

    On CIFAR-10 the small form has 11,173,962.

    Attributes: those of `ResNet20`, and
      form: of the stem: 'small', a 3x3 convolution; 'large', a 7x7 one of stride 2 and a max-pool.
    """

    form: str = "small"
    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = _published((64, 128, 256, 512), (2, 2, 2, 2))
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    shortcut: str = "conv"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`."""
        return _logits(self, images, train, (2, 2, 2, 2), self.form)


class ResNet34(nn.Module):
    """Stages of 3, 4, 6 and 3 blocks: 21,797,672 parameters on ImageNet.

    On CIFAR-10 the small form has 21,282,122.

    Attributes: those of `ResNet18`.
    """

    form: str = "small"
    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = _published((64, 128, 256, 512), (3, 4, 6, 3))
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    shortcut: str = "conv"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`."""
        return _logits(self, images, train, (3, 4, 6, 3), self.form)
