"""Conv-2, Conv-4 and Conv-6: VGG-like blocks for CIFAR-10, of the lottery ticket paper.

Frankle and Carbin 2019, figure 2: pairs of padded 3x3 convolutions, a 2x2 max-pool after each pair,
two dense layers of 256 units, Gaussian Glorot initialisation. The paper states 4.3M, 2.4M
and 1.7M weights, but Conv-6 as described has 2.26M.
"""

from typing import ClassVar, Protocol

import jax
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool2
from jaxtickets.nets.layers import ConvSettings, conv, dense, flatten, output


class BlockSettings(ConvSettings, Protocol):
    """The attributes that the three nets share."""

    widths: tuple[int, ...]
    classes: int


def _logits(net: BlockSettings, images: jax.Array) -> jax.Array:
    """The forward pass of all three: `[n, h, w, c]` -> `[n, classes]`."""
    *filters, fc1, fc2 = net.widths
    x = images
    for layer, features in enumerate(filters, 1):
        x = nn.relu(conv(net, f"conv{layer}", x, features, 3, padding="SAME"))
        if layer % 2 == 0:
            x = max_pool2(x)
    x = nn.relu(dense(net, "fc1", flatten(x), fc1))
    x = nn.relu(dense(net, "fc2", x, fc2))
    return output(net, x)


class Conv2(nn.Module):
    """One block of 64 filters: 4,300,992 weights on CIFAR-10, 38,592 of them in convolutions.

    Attributes:
      widths: units of `conv1`, `conv2`, `fc1`, `fc2`.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = (64, 64, 256, 256)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "glorot_normal"
    conv: str = "auto"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training makes no difference."""
        return _logits(self, images)


class Conv4(nn.Module):
    """Blocks of 64 and 128 filters: 2,425,024 weights on CIFAR-10, 259,776 in convolutions.

    Attributes:
      widths: units of `conv1` to `conv4`, `fc1`, `fc2`.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = (64, 64, 128, 128, 256, 256)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "glorot_normal"
    conv: str = "auto"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training makes no difference."""
        return _logits(self, images)


class Conv6(nn.Module):
    """Blocks of 64, 128 and 256 filters: 2,261,184 weights on CIFAR-10, 1,144,512 in convolutions.

    Attributes:
      widths: units of `conv1` to `conv6`, `fc1`, `fc2`.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 256, 256)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "glorot_normal"
    conv: str = "auto"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training makes no difference."""
        return _logits(self, images)
