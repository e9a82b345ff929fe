"""LeNet-5 in Caffe's variant, which the pruning papers use."""

from typing import ClassVar

import jax
from flax import linen as nn

from jaxtickets.nets.convolution import max_pool2
from jaxtickets.nets.layers import batch_norm, conv, dense, flatten, output


class LeNet5(nn.Module):
    """Two 5x5 convolutions, 20 and 50 filters, then 500 units: 430,500 weights on MNIST.

    Caffe's `lenet_train_test.prototxt` has no ReLU after its convolutions; like most
    reimplementations, this net has. Caffe's filler, 'xavier', is uniform with variance
    `1 / fan_in`; the default here is Glorot normal, as in the lottery ticket paper.

    Attributes:
      widths: units of `conv1`, `conv2`, `fc1`.
      classes: the number of logits.
      use_bias: whether layers have biases.
      initializer: a name in `inits.INITIALIZERS`.
      conv: 'auto', 'im2col' or 'lax', see `convolution`.
      batch_norm: whether a batch norm follows each layer but the output, before its ReLU: `bn1`,
        `bn2`, `fc1_bn`.
    """

    image_shape: ClassVar[tuple[int, int, int]] = (28, 28, 1)
    widths: tuple[int, ...] = (20, 50, 500)
    classes: int = 10
    use_bias: bool = True
    initializer: str = "glorot_normal"
    conv: str = "auto"
    batch_norm: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """`[n, h, w, c]` -> logits `[n, classes]`; only batch norm depends on the mode."""

        def norm(name: str, inputs: jax.Array) -> jax.Array:
            return batch_norm(name, inputs, train) if self.batch_norm else inputs

        conv1, conv2, fc1 = self.widths
        x = max_pool2(nn.relu(norm("bn1", conv(self, "conv1", images, conv1, 5))))
        x = max_pool2(nn.relu(norm("bn2", conv(self, "conv2", x, conv2, 5))))
        x = nn.relu(norm("fc1_bn", dense(self, "fc1", flatten(x), fc1)))
        return output(self, x)
