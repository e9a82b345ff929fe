"""LeNet-5 as published in 1998, in the variant of tutorials."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool2
from jaxtickets.nets.layers import conv, dense, flatten, output


class LeNet5LeCun(nn.Module):
    """5x5 convolutions, 6 (padded) and 16 filters, then 120 and 84 units: 61,470 weights on MNIST.

    LeCun et al. 1998, figure 2, with ReLU, max-pooling, every map connected to every map, and a
    dense output where the original has tanh, trained averages, a table, and radial basis functions.
    Glorot normal, as for `lenet5`.

    Attributes:
      widths: units of `conv1`, `conv2`, `fc1`, `fc2`.
      classes: the number of logits.
      use_bias: whether layers have biases; then 61,706 parameters.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (28, 28, 1)
    widths: tuple[int, ...] = (6, 16, 120, 84)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "glorot_normal"
    conv: str = "auto"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training makes no difference."""
        conv1, conv2, fc1, fc2 = self.widths
        x = max_pool2(nn.relu(conv(self, "conv1", images, conv1, 5, padding="SAME")))
        x = max_pool2(nn.relu(conv(self, "conv2", x, conv2, 5)))
        x = nn.relu(dense(self, "fc1", flatten(x), fc1))
        x = nn.relu(dense(self, "fc2", x, fc2))
        return output(self, x)
