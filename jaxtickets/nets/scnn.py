"""The simple convolutional net of the tables on deterministic and Bayesian classification."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool2
from jaxtickets.nets.layers import conv, dense, flatten, output


class SCNN(nn.Module):
    """3x3 convolutions, 6 and 16 filters, then 120 units: 50,118 weights on MNIST.

    28 -> 26 -> 13 -> 11 -> 5 pixels a side, so 400 features. The source does not specify the
    initialiser: the default is Kaiming normal, which suits ReLU.

    Attributes:
      widths: units of `conv1`, `conv2`, `fc1`.
      classes: the number of logits.
      use_bias: whether layers have biases; then 50,270 parameters.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (28, 28, 1)
    widths: tuple[int, ...] = (6, 16, 120)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training makes no difference."""
        conv1, conv2, fc1 = self.widths
        x = max_pool2(nn.relu(conv(self, "conv1", images, conv1, 3)))
        x = max_pool2(nn.relu(conv(self, "conv2", x, conv2, 3)))
        x = nn.relu(dense(self, "fc1", flatten(x), fc1))
        return output(self, x)
