"""LeNet-300-100: the multilayer perceptron."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.layers import dense, flatten, output


class LeNet300100(nn.Module):
    """Two hidden layers, 300 and 100 units: 266,200 weights on MNIST, 266,610 with biases.

    LeCun et al. 1998. Glorot normal is the lottery ticket paper's initialiser; the thesis on
    annealing masks leaves the biases out.

    Attributes:
      widths: units of `fc1` and `fc2`.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (28, 28, 1)
    widths: tuple[int, ...] = (300, 100)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "glorot_normal"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training makes no difference."""
        fc1, fc2 = self.widths
        x = flatten(images)
        x = nn.relu(dense(self, "fc1", x, fc1))
        x = nn.relu(dense(self, "fc2", x, fc2))
        return output(self, x)
