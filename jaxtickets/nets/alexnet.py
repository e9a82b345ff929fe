"""AlexNet, in the form that became common."""

from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool, max_pool2
from jaxtickets.nets.layers import average, block, conv, dense, flatten, output

FILTERS = (64, 192, 384, 256, 256)
WINDOWS = {2: (5, 1, 2), 3: (3, 1, 1), 4: (3, 1, 1), 5: (3, 1, 1)}
"""Layer -> the side of its window, stride and padding; those of the first depend on the form."""
POOLED = (1, 2, 5)
"""The layers before a pool."""


class AlexNet(nn.Module):
    """Five convolutions: 61,100,840 parameters on ImageNet, 2,472,266 on CIFAR-10.

    Krizhevsky 2014, "One weird trick", as in torchvision: no groups, no response normalisation. The
    small form is the usual one for CIFAR: the same convolutions with wider padding before 2x2
    pools, which reduce 32 pixels a side to one, and no hidden dense layer. Its output reads the
    mean over the pixels, so that other image sizes work too.

    Attributes:
      form: 'large' for ImageNet's images, 'small' for CIFAR's.
      widths: filters of `conv1` to `conv5`; in the large form, then units of `fc1` and `fc2`.
        Empty: the published ones.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      remat: whether the backward pass recomputes the activations of each convolution.
      dropout: the probability that an input of `fc1` or `fc2` is dropped in training.
    """

    form: str = "small"
    image_shape: ClassVar[tuple[int, int, int]] = (224, 224, 3)
    widths: tuple[int, ...] = ()
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    remat: bool = False
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Fills in the published widths."""
        self.widths = self.widths or (*FILTERS, *((4096, 4096) if self.form == "large" else ()))
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout' if large."""
        large = self.form == "large"
        x, widths = images, iter(self.widths)
        for layer in range(1, 6):
            x = block(self, partial(_convolved, layer=layer, filters=next(widths)), x)
        if not large:
            return output(self, average(x))
        x = flatten(x)
        for name in ("fc1", "fc2"):
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
            x = nn.relu(dense(self, name, x, next(widths)))
        return output(self, x)


def _convolved(net: AlexNet, images: jax.Array, layer: int, filters: int) -> jax.Array:
    """A convolution by its number, its ReLU and the pool after it, if there is one."""
    large = net.form == "large"
    size, stride, padding = (11, 4, 2 if large else 5) if layer == 1 else WINDOWS[layer]
    x = conv(net, f"conv{layer}", images, filters, size, stride=stride, padding=padding)
    x = nn.relu(x)
    if layer in POOLED:
        x = max_pool(x, 3, 2) if large else max_pool2(x)
    return x
