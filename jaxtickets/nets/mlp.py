"""A multilayer perceptron with any number of hidden layers.

By default 784-1568-1568-1568-10, on which methods of dynamic sparse training are compared at 99 %
sparsity (Zhang et al., 2025, with twice the number of inputs in each layer).
"""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.layers import dense, flatten, output


class MLP(nn.Module):
    """Dense layers with ReLU between them.

    Attributes:
      widths: the units of the hidden layers `fc1`, `fc2`, ...
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (28, 28, 1)
    widths: tuple[int, ...] = (1568, 1568, 1568)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "kaiming_normal"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; training makes no difference."""
        x = flatten(images)
        for i, units in enumerate(self.widths, 1):
            x = nn.relu(dense(self, f"fc{i}", x, units))
        return output(self, x)
