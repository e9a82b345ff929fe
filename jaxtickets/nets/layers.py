"""The layers that the nets are built from, and the blocks whose activations may be recomputed.

A layer whose inputs are bfloat16 computes in bfloat16, with its weights rounded for the product,
and so do all layers after it but the output layer, which is in float32. Weights, the statistics of
batch norm and all gradients of weights stay in float32. Other inputs have JAX's usual promotion.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxtickets.nets.convolution import convolution
from jaxtickets.nets.inits import initializer


class DenseSettings(Protocol):
    """The attributes of a net that its dense layers use."""

    use_bias: bool
    initializer: str


class ConvSettings(DenseSettings, Protocol):
    """The attributes of a net that its convolutions use."""

    conv: str


class OutputSettings(DenseSettings, Protocol):
    """The attributes of a net that its output layer uses."""

    classes: int


class BlockSettings(ConvSettings, Protocol):
    """The attributes of a net that its blocks use."""

    remat: bool


class ImageTooSmallError(ValueError):
    """The images are so small that no pixels remain after the convolutions and pools."""


def conv(
    net: ConvSettings,
    name: str,
    images: jax.Array,
    features: int,
    size: int,
    *,
    stride: int = 1,
    padding: str | int = "VALID",
    depthwise: bool = False,
    bias: bool = True,
) -> jax.Array:
    """A `size` x `size` convolution: `[n, h, w, c]` -> `[n, out_h, out_w, features]`.

    Args:
      net: the net, for its settings.
      name: the layer's name.
      images: `[n, h, w, c]`.
      features: the number of filters.
      size: the side of the window, in pixels.
      stride: in pixels.
      padding: 'SAME', 'VALID', or the number of zeros on each of the four sides.
      depthwise: whether filter `i` reads only channel `i`; `features` is then `c`.
      bias: False if a batch norm follows, whose shift makes a bias redundant.

    >>> from jaxtickets.nets.lenet5 import LeNet5
    >>> class OneLayer(LeNet5):
    ...     @nn.compact
    ...     def __call__(self, images):
    ...         return conv(self, "conv1", images, 6, 5, padding=2)
    >>> images = jax.ShapeDtypeStruct((1, 8, 8, 3), "float32")
    >>> outputs, variables = jax.eval_shape(OneLayer().init_with_output, jax.random.key(0), images)
    >>> outputs.shape, variables["params"]["conv1"]["kernel"].shape
    ((1, 8, 8, 6), (5, 5, 3, 6))
    """
    draw = initializer(net.initializer)
    channels = 1 if depthwise else images.shape[-1]
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=padding,
        feature_group_count=images.shape[-1] // channels,
        use_bias=net.use_bias and bias,
        kernel_init=draw.kernel,
        bias_init=draw.bias(size * size * channels),
        conv_general_dilated=convolution(net.conv),
        dtype=_half(images),
        name=name,
    )(images)


def dense(net: DenseSettings, name: str, inputs: jax.Array, features: int) -> jax.Array:
    """An affine map, or a linear one without bias: `[n, inputs]` -> `[n, features]`.

    >>> from jaxtickets.nets.mlp import MLP
    >>> class OneLayer(MLP):
    ...     @nn.compact
    ...     def __call__(self, inputs):
    ...         return dense(self, "fc1", inputs, 4)
    >>> inputs = jax.ShapeDtypeStruct((5, 3), "float32")
    >>> outputs, variables = jax.eval_shape(OneLayer().init_with_output, jax.random.key(0), inputs)
    >>> outputs.shape, variables["params"]["fc1"]["kernel"].shape
    ((5, 4), (3, 4))
    """
    draw = initializer(net.initializer)
    return nn.Dense(
        features,
        use_bias=net.use_bias,
        kernel_init=draw.kernel,
        bias_init=draw.bias(inputs.shape[-1]),
        dtype=_half(inputs),
        name=name,
    )(inputs)


def output(net: OutputSettings, inputs: jax.Array) -> jax.Array:
    """The output layer: `[n, inputs]` -> logits `[n, classes]`, in float32 or higher.

    >>> from jaxtickets.nets.mlp import MLP
    >>> class OneLayer(MLP):
    ...     @nn.compact
    ...     def __call__(self, inputs):
    ...         return output(self, inputs)
    >>> inputs = jax.ShapeDtypeStruct((5, 3), "bfloat16")
    >>> logits, _ = jax.eval_shape(OneLayer(classes=7).init_with_output, jax.random.key(0), inputs)
    >>> logits.shape, str(logits.dtype)
    ((5, 7), 'float32')
    """
    whole = inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))
    return dense(net, "out", whole, net.classes)


def _half(inputs: jax.Array) -> jnp.dtype | None:
    """The type in which a layer computes; None for that of inputs and weights together."""
    return inputs.dtype if inputs.dtype == jnp.bfloat16 else None


def batch_norm(name: str, inputs: jax.Array, train: bool) -> jax.Array:
    """Batch norm over all axes but the last, with scale and shift; momentum 0.9, epsilon 1e-5.

    In training mode it uses the batch's statistics and updates the running ones. The running
    variance is that of the population, whereas PyTorch (with momentum 0.1 in its convention) uses
    that of the sample.

    >>> from jaxtickets.nets.mlp import MLP
    >>> class OneLayer(MLP):
    ...     @nn.compact
    ...     def __call__(self, inputs):
    ...         return batch_norm("bn1", inputs, train=True)
    >>> inputs = jnp.array([[0.0, 5.0], [2.0, 9.0]])
    >>> outputs, variables = OneLayer().init_with_output(jax.random.key(0), inputs)
    >>> outputs.round(3).tolist(), variables["params"]["bn1"]["scale"].tolist()
    ([[-1.0, -1.0], [1.0, 1.0]], [1.0, 1.0])
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=_half(inputs),
        name=name,
    )(inputs)


def block(net: BlockSettings, fn: Callable[[Any, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`fn(net, x)`: a block of layers, of which the backward pass needs only `x` if `net.remat`.

    It then computes the block's activations once more, from the same numbers: less memory for a
    third more products.

    Args:
      net: the net.
      fn: makes the block's layers in the net that it is given; pure otherwise.
      x: the block's input.

    >>> from jaxtickets.nets.vgg import VGG11
    >>> class OneBlock(VGG11):
    ...     @nn.compact
    ...     def __call__(self, inputs):
    ...         return block(self, lambda net, x: nn.relu(dense(net, "fc1", x, 4)), inputs)
    >>> inputs = jnp.ones((5, 3))
    >>> for remat in (False, True):
    ...     net = OneBlock(remat=remat)
    ...     jaxpr = jax.make_jaxpr(net.init_with_output)(jax.random.key(0), inputs)
    ...     print(remat, any("remat" in str(eqn.primitive) for eqn in jaxpr.eqns))
    False False
    True True
    """
    return nn.remat(fn)(net, x) if net.remat else fn(net, x)


def flatten(images: jax.Array) -> jax.Array:
    """`[n, h, w, c]` -> `[n, h * w * c]`, with the channel varying fastest.

    Raises:
      ImageTooSmallError: there are no pixels.

    >>> flatten(np.arange(8).reshape(1, 2, 2, 2)).tolist()
    [[0, 1, 2, 3, 4, 5, 6, 7]]
    """
    if 0 in images.shape[1:]:
        raise ImageTooSmallError("the images are too small: no pixels are left to flatten")
    return images.reshape(images.shape[0], -1)


def average(images: jax.Array) -> jax.Array:
    """`[n, h, w, c]` -> `[n, c]`, the mean over the pixels.

    Raises:
      ImageTooSmallError: there are no pixels.

    >>> average(np.arange(8).reshape(1, 2, 2, 2)).tolist()
    [[3.0, 4.0]]
    """
    if 0 in images.shape[1:]:
        raise ImageTooSmallError("the images are too small: no pixels are left to average")
    return images.mean((1, 2))
