"""The small LeNet of the tables on threshold pruning and retraining."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool2
from jaxtickets.nets.layers import conv, dense, flatten, output


class LeNet529k(nn.Module):
    """3x3 convolutions, 6 (padded) and 6 filters, then 128 units: 29,456 parameters on MNIST.

    28 -> 14 -> 12 -> 6 pixels a side, so 216 features. The source specifies neither the initialiser
    nor the dropout rate: the defaults are Kaiming normal, which suits ReLU, and the usual one half,
    before the output.

    Attributes:
      widths: units of `conv1`, `conv2`, `fc1`.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      dropout: the probability that a unit of `fc1` is dropped in training.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (28, 28, 1)
    widths: tuple[int, ...] = (6, 6, 128)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout'."""
        conv1, conv2, fc1 = self.widths
        x = max_pool2(nn.relu(conv(self, "conv1", images, conv1, 3, padding="SAME")))
        x = max_pool2(nn.relu(conv(self, "conv2", x, conv2, 3)))
        x = nn.relu(dense(self, "fc1", flatten(x), fc1))
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return output(self, x)
