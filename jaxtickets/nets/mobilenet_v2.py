"""MobileNetV2: depthwise convolutions in inverted bottlenecks."""

from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.layers import (
    BlockSettings,
    ConvSettings,
    average,
    batch_norm,
    block,
    conv,
    output,
)

# stream, expansion, blocks, and the first block's stride at 224 pixels: table 2 of the paper
STAGES = (
    (16, 1, 1, 1),
    (24, 6, 2, 2),
    (32, 6, 3, 2),
    (64, 6, 4, 2),
    (96, 6, 3, 1),
    (160, 6, 3, 2),
    (320, 6, 1, 1),
)


def _rounded(channels: float) -> int:
    """`channels` rounded to a multiple of 8, at least 8 and at least 90 % of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _published(width: float) -> tuple[int, ...]:
    """The paper's widths, times `width`."""
    before = _rounded(32 * width)
    widths = [before]
    for channels, expansion, blocks, _ in STAGES:
        stream = _rounded(channels * width)
        for number in range(blocks):
            widths += [expansion * before] if expansion > 1 else []
            widths += [stream] if number == 0 else []
            before = stream
    return (*widths, _rounded(1280 * max(1.0, width)))


class MobileNetV2(nn.Module):
    """17 inverted bottlenecks: 3,504,872 parameters on ImageNet, 2,236,682 on CIFAR-10.

    Sandler et al. 2018. A block expands the residual stream by a 1x1 convolution, filters each
    channel by a 3x3 depthwise convolution, and projects back onto the stream by a 1x1 convolution
    without ReLU. Batch norm follows each convolution, ReLU6 the first two. The first stage does not
    expand. The first block of a stage changes the stream's width and has no shortcut, even if the
    widths of a shrunk net are equal. The small form, for CIFAR, has the usual stride of 1 in the
    stem and in stage 2.

    Attributes:
      form: 'large' for ImageNet's images, 'small' for CIFAR's.
      width: the paper's width multiplier, from which `widths` come if they aren't given.
      widths: of the groups of channels in forward order: the stem (32); the stream of stage 1 (16);
        for each later stage the expanded width of its first block, the stream's width, the
        expanded widths of the other blocks; the last convolution (1,280). Empty: the published
        ones.
      classes: the number of logits.
      use_bias: whether the output has a bias; a batch norm follows each convolution.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      remat: whether the backward pass recomputes the activations of each block.
      dropout: the probability that an input of the output layer is dropped in training.
    """

    form: str = "small"
    width: float = 1.0
    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = ()
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Fills in the published widths."""
        self.widths = self.widths or _published(self.width)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout'."""
        large = self.form == "large"
        widths = iter(self.widths)
        x = nn.relu6(_layer(self, "stem", images, next(widths), 3, train, 2 if large else 1))
        for stage, (_, expansion, blocks, halving) in enumerate(STAGES, 1):
            for number in range(1, 1 + blocks):
                first = number == 1
                layers = partial(
                    _bottleneck,
                    name=f"stage{stage}_block{number}",
                    expanded=next(widths) if expansion > 1 else None,
                    stream=next(widths) if first else None,
                    stride=halving if first and (large or stage != 2) else 1,
                    train=train,
                )
                x = block(self, layers, x)
        x = nn.relu6(_layer(self, "last", x, next(widths), 1, train))
        x = nn.Dropout(self.dropout)(average(x), deterministic=not train)
        return output(self, x)


def _bottleneck(
    net: BlockSettings,
    images: jax.Array,
    name: str,
    expanded: int | None,
    stream: int | None,
    stride: int,
    train: bool,
) -> jax.Array:
    """An inverted bottleneck: `[n, h, w, c]` -> `[n, h', w', stream]`.

    Args:
      net: the net.
      images: `[n, h, w, c]`.
      name: the block's name.
      expanded: the width to which it expands; None: it doesn't.
      stream: the new width of the stream; None: the old one, with a shortcut.
      stride: of the depthwise convolution.
      train: whether the net is in training mode.
    """
    y = images
    if expanded is not None:
        y = nn.relu6(_layer(net, f"{name}_expand", y, expanded, 1, train))
    y = nn.relu6(_layer(net, f"{name}_depthwise", y, y.shape[-1], 3, train, stride, True))
    y = _layer(net, f"{name}_project", y, stream or images.shape[-1], 1, train)
    return images + y if stream is None else y


def _layer(
    net: ConvSettings,
    name: str,
    images: jax.Array,
    features: int,
    size: int,
    train: bool,
    stride: int = 1,
    depthwise: bool = False,
) -> jax.Array:
    """A padded convolution and its batch norm: `[n, h, w, c]` -> `[n, out_h, out_w, features]`."""
    x = conv(
        net,
        f"{name}_conv",
        images,
        features,
        size,
        stride=stride,
        padding=size // 2,
        depthwise=depthwise,
        bias=False,
    )
    return batch_norm(f"{name}_bn", x, train)
