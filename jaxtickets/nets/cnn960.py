"""A net of 960 filters, which the thesis on annealing masks switches on and off."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.layers import batch_norm, conv, flatten, output


class CNN960(nn.Module):
    """Four 3x3 convolutions, 64, 128, 256 and 512 filters, then the output: for CIFAR-10.

    Each convolution is followed by ReLU, dropout 0.3 and batch norm, in that order; the first and
    the third have stride 2: 32 -> 15 -> 13 -> 6 -> 4 pixels a side, so 8,192 features,
    1,631,936 weights, and 1,634,826 parameters with the biases and the batch norms. The sources do
    not specify the initialiser: the default is Kaiming normal, which suits ReLU.

    Attributes:
      widths: filters of `conv1` to `conv4`.
      classes: the number of logits.
      use_bias: whether convolutions and the output have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      dropout: the probability that an activation is dropped in training.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (32, 32, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"
    conv: str = "auto"
    dropout: float = 0.3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training needs a key for 'dropout'."""
        x = images
        for layer, (filters, stride) in enumerate(zip(self.widths, (2, 1, 2, 1), strict=True), 1):
            x = nn.relu(conv(self, f"conv{layer}", x, filters, 3, stride=stride))
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
            x = batch_norm(f"bn{layer}", x, train)
        return output(self, flatten(x))
