"""The inputs of a net's dense layers and convolutions, as vectors that meet their weights.

A layer computes `y_r = Σ_i W_ri x_i + b_r`. For a dense layer, x is its input; a convolution reads
one patch of the image for each position, with the same weights. A convolution with groups is
several such layers side by side, each with inputs and outputs of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.linear import canonicalize_padding

from jaxtickets import masks
from jaxtickets.nets import convolution
from jaxtickets.types import Array, Model, Params, Prunable, Stats

Padding = str | tuple[tuple[int, int], ...]


class Layer(NamedTuple):
    """A dense layer or a convolution; hashable.

    Attributes:
      path: the path of its kernel.
      bias: the path of its bias, or None.
      window: `(kh, kw)` of a convolution, `()` of a dense layer.
      strides, padding: those of the convolution, see `nets.convolution.patches`.
      groups: the number of groups of channels.
    """

    path: str
    bias: str | None
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Padding
    groups: int


def layers(
    model: Model, params: Params, stats: Stats, images: Array, prunable: Prunable
) -> tuple[Layer, ...]:
    """The layers of the prunable leaves, in the order in which the net calls them.

    Args:
      model: a flax module of `nets.functional`.
      params, stats: its parameters and statistics.
      images: prepared images, as the net reads them, or their shapes.
      prunable: the kernels.

    Raises:
      ValueError: in one line: a leaf is not the kernel of an `nn.Dense` or a two-dimensional
        `nn.Conv` that the net calls, or a convolution has dilation or circular padding.

    >>> from jaxtickets import nets
    >>> net, images = nets.functional(nn.Dense(2, use_bias=False), (2,)), np.ones((1, 2), "f")
    >>> layers(net, {"kernel": np.zeros((2, 2), "f")}, {}, images, ("kernel",))[0].path
    'kernel'
    """
    found: dict[str, Layer] = {}
    has = set(masks.paths(params))

    def note(module: Any, path: str, inputs: Array) -> Array:
        found.setdefault(path, _layer(module, path, has))
        return inputs

    def run(params: Params, stats: Stats, images: Array) -> Array:
        return _watched(model, params, stats, images, prunable, note, lambda path, output: output)

    jax.eval_shape(run, params, stats, images)
    for path in prunable:
        if path not in found:
            raise ValueError(
                f"{path} is not the kernel of a dense layer or a convolution that the net calls: "
                "exclude it"
            )
    return tuple(found.values())


def inputs(
    model: Model, params: Params, stats: Stats, images: Array, paths: Sequence[str]
) -> dict[str, tuple[Array, ...]]:
    """Path of a kernel -> the layer's inputs in evaluation mode, one array for each of its calls.

    Args:
      model, params, stats, images: as in `layers`; may be traced.
      paths: the kernels of the layers.

    >>> from jaxtickets import nets
    >>> net, images = nets.functional(nn.Dense(2, use_bias=False), (2,)), np.array([[3, 4]], "f")
    >>> params = {"kernel": np.zeros((2, 2), "f")}
    >>> [array.tolist() for array in inputs(net, params, {}, images, ("kernel",))["kernel"]]
    [[[3.0, 4.0]]]
    """
    seen: dict[str, tuple[Array, ...]] = dict.fromkeys(paths, ())

    def note(module: Any, path: str, inputs: Array) -> Array:
        seen[path] = (*seen[path], inputs)
        return inputs

    _watched(model, params, stats, images, paths, note, lambda path, output: output)
    return seen


def output_curvature(
    model: Model, params: Params, stats: Stats, images: Array, paths: Sequence[str]
) -> dict[str, Array]:
    """Path -> float`[outputs]`: the sum over the images of the curvature of the cross-entropy.

    The curvature is that in the layer's outputs, the diagonal of the Gauss–Newton matrix (equal to
    the Fisher information): with g_c the gradient of `log p_c`, `Σ_c p_c g_c²`, exact over the
    classes, summed over an output's positions. Martens and Grosse, "Optimizing neural networks with
    Kronecker-factored approximate curvature", 2015, section 3, use the whole matrix.

    Args:
      model, params, stats, images, paths: as in `inputs`.

    >>> from jaxtickets import nets
    >>> net, images = nets.functional(nn.Dense(2, use_bias=False), (2,)), np.array([[3, 4]], "f")
    >>> params = {"kernel": np.zeros((2, 2), "f")}
    >>> output_curvature(net, params, {}, images, ("kernel",))["kernel"].tolist()  # p (1 - p)
    [0.25, 0.25]
    """
    shapes: dict[str, tuple[Any, ...]] = dict.fromkeys(paths, ())

    def measure(path: str, output: Array) -> Array:
        shapes[path] = (*shapes[path], jax.typeof(output))
        return output

    def plain(images: Array) -> Array:
        return _watched(model, params, stats, images, paths, lambda m, p, x: x, measure)

    jax.eval_shape(plain, images)
    zeros = {path: [jnp.zeros(a.shape, a.dtype) for a in some] for path, some in shapes.items()}

    def log_likelihood(added: dict[str, list[Array]]) -> Array:
        left = {path: list(some) for path, some in added.items()}

        def add(path: str, output: Array) -> Array:
            return output + left[path].pop(0)

        logits = _watched(model, params, stats, images, paths, lambda m, p, x: x, add)
        return jax.nn.log_softmax(logits)

    values, pull = jax.vjp(log_likelihood, zeros)
    share = jnp.exp(values)

    def of_class(total: dict[str, Array], number: Array) -> tuple[dict[str, Array], None]:
        (gradients,) = pull(jnp.zeros_like(values).at[:, number].set(1))

        def squared(gradient: Array) -> Array:
            each = jnp.sum(gradient**2, tuple(range(1, gradient.ndim - 1)))
            return share[:, number] @ each

        return {
            path: total[path] + sum(squared(gradient) for gradient in some)
            for path, some in gradients.items()
        }, None

    zero = {path: jnp.zeros(some[0].shape[-1], some[0].dtype) for path, some in zeros.items()}
    return jax.lax.scan(of_class, zero, jnp.arange(values.shape[-1]))[0]


def _watched(
    model: Model,
    params: Params,
    stats: Stats,
    images: Array,
    paths: Sequence[str],
    reads: Callable[[Any, str, Array], Array],
    makes: Callable[[str, Array], Array],
) -> Array:
    """The logits in evaluation mode, with the inputs and outputs of layers replaced."""

    def watch(call: Callable[..., Any], args: tuple, named: dict, context: Any) -> Any:
        module = context.module
        path = "/".join((*module.path, "kernel"))
        called = context.method_name == "__call__" and isinstance(module, nn.Dense | nn.Conv)
        if not called or path not in paths:
            return call(*args, **named)
        first, *rest = args
        return makes(path, call(reads(module, path, first), *rest, **named))

    with nn.intercept_methods(watch):
        return model.apply(params, stats, images, None, False)[0]


def _layer(module: Any, path: str, has: set[str]) -> Layer:
    bias = path.removesuffix("kernel") + "bias"
    own = bias if bias in has else None
    if isinstance(module, nn.Dense):
        return Layer(path, own, (), (), "VALID", 1)
    window = module.kernel_size
    window = (window,) if isinstance(window, int) else tuple(window)

    def pair(value: Any) -> tuple[int, ...]:
        return tuple(value) if isinstance(value, Sequence) else (value or 1,) * len(window)

    padding = canonicalize_padding(module.padding, len(window))
    if len(window) != 2 or padding in ("CIRCULAR", "CAUSAL", "REFLECT"):
        raise ValueError(f"{path}: only convolutions of images, padded with zeros, are known")
    if any(d != 1 for d in (*pair(module.kernel_dilation), *pair(module.input_dilation))):
        raise ValueError(f"{path}: the convolution has dilation, which is not known here")
    if not isinstance(padding, str):
        padding = tuple((low, high) for low, high in padding)
    return Layer(path, own, window, pair(module.strides), padding, module.feature_group_count)


def vectors(layer: Layer, given: Array) -> Array:
    """`[groups, n, d]`: the inputs that the layer's weights meet, one for each position.

    Args:
      layer: the layer.
      given: an input of the layer, `[..., d]` or `[images, h, w, c]`.

    >>> dense = Layer("kernel", None, window=(), strides=(), padding="VALID", groups=1)
    >>> vectors(dense, np.array([[1, 2], [3, 4]])).tolist()
    [[[1, 2], [3, 4]]]
    >>> image = np.arange(6.0).reshape(1, 2, 3, 1)
    >>> vectors(dense._replace(window=(2, 2), strides=(1, 1)), image).tolist()
    [[[0.0, 1.0, 3.0, 4.0], [1.0, 2.0, 4.0, 5.0]]]
    """
    if not layer.window:
        return given.reshape(1, -1, given.shape[-1])
    patches = convolution.patches(given, layer.window, layer.strides, layer.padding)
    groups, places = layer.groups, layer.window[0] * layer.window[1]
    split = patches.reshape(-1, places, groups, given.shape[-1] // groups)
    return jnp.moveaxis(split, 2, 0).reshape(groups, split.shape[0], -1)


def matrices(layer: Layer, kernel: Array) -> Array:
    """`[groups, outputs, d]`: the kernel `[..., d, outputs]` with one row for each output.

    >>> dense = Layer("kernel", None, window=(), strides=(), padding="VALID", groups=1)
    >>> matrices(dense, np.array([[1, 2], [3, 4], [5, 6]])).tolist()
    [[[1, 3, 5], [2, 4, 6]]]
    """
    flat = kernel.reshape(-1, layer.groups, kernel.shape[-1] // layer.groups)
    return flat.transpose(1, 2, 0)


def kernel(rows: Array, shape: Sequence[int]) -> Array:
    """The kernel of `shape` from the rows of `matrices`.

    >>> kernel(np.array([[[1, 3, 5], [2, 4, 6]]]), (3, 2)).tolist()
    [[1, 2], [3, 4], [5, 6]]
    """
    return rows.transpose(2, 0, 1).reshape(tuple(shape))
