"""Convolutions and pools in the form that is fastest on each backend; the choice is made here only.

On a CPU, `lax.conv_general_dilated` is very slow inside `scan`, and slower still when `vmap` over
runs turns it into a grouped convolution. Slices and a matrix product are fast, as long as the
slices of a few images at a time fit into the cache.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxtickets import runs

Convolution = Callable[..., jax.Array]
"""A function with the signature of `lax.conv_general_dilated`, as `flax.linen.Conv` takes it."""

Net = TypeVar("Net")
"""A flax module, or a model as functions."""

LAYOUT = ("NHWC", "HWIO", "NHWC")

PATCHES = 2**21
"""The bytes of patches in one part, about the size of a core's cache.

Measured on two cores of an AMD EPYC, forward and backward, as a share of the rate of matrix
products: a 3x3 convolution of 60 images of 32x32 with 64 channels reaches 0.35 with all patches at
once, and 0.40, 0.60, 0.58, 0.72 with parts of 0.5, 1, 2, 4 MiB; one of 128 such images with 16
channels reaches 0.14, and 0.24, 0.33, 0.41, 0.36.
"""

FEW_CHANNELS = 4
"""The most channels for which patches are built from `kw` slices, then `kh`, not `kh kw` at once.

The patches are the same, the program compiles in half the time and runs slightly faster. With more
channels it would run slower, at up to half the speed.
"""


def im2col(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """2-D convolution as matrix products of image patches with the kernel.

    `out[n, y, x, o] = sum_(i, j, c) lhs[n, s y + i, s x + j, c] rhs[i, j, c, o]`

    The patches take `kh * kw` times the memory of the input. They are computed for a part of the
    images at a time, see `PATCHES`, and recomputed in the backward pass; if one part holds all
    images, there is one product, and its patches are stored. A depthwise convolution, `out[n, y, x,
    c] = sum_(i, j) lhs[n, s y + i, s x + j, c] rhs[i, j, 0, c]`, uses no matrix product: it is a
    sum of `kh * kw` scaled slices.

    Args:
      lhs: images `[n, h, w, c]`.
      rhs: kernel `[kh, kw, c, o]`, or `[kh, kw, 1, c]` if depthwise.
      window_strides: one stride for rows, one for columns.
      padding: 'SAME', 'VALID' or `((top, bottom), (left, right))`, none negative.
      lhs_dilation: None or ones.
      rhs_dilation: None or ones.
      dimension_numbers: must stand for ('NHWC', 'HWIO', 'NHWC').
      feature_group_count: 1, or `c` for a depthwise convolution with one filter for each channel.
      batch_group_count: 1.
      precision: of the matrix product.
      preferred_element_type: of the matrix product.

    Returns:
      `[n, out_h, out_w, o]`, equal to `lax.conv_general_dilated` to float tolerance.

    Raises:
      NotImplementedError: dilation, groups, another layout, or a number of dimensions other than 2.

    >>> image, kernel = jnp.arange(9.0).reshape(1, 3, 3, 1), jnp.ones((2, 2, 1, 1))
    >>> sums = im2col(image, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    >>> sums[0, :, :, 0].tolist()
    [[8.0, 12.0], [20.0, 24.0]]
    """
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    depthwise = feature_group_count > 1 and rhs.shape[2:] == (1, feature_group_count)
    grouped = batch_group_count != 1 or (feature_group_count != 1 and not depthwise)
    if grouped or any(d != 1 for d in dilations):
        raise NotImplementedError("im2col has neither groups nor dilation: use the 'lax' form")
    wanted = lax.conv_dimension_numbers((1,) * 4, (1,) * 4, LAYOUT)
    if lhs.ndim != 4 or (
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) != wanted
    ):
        raise NotImplementedError("im2col is for NHWC images and HWIO kernels: use the 'lax' form")
    if depthwise:
        return _depthwise(lhs, rhs, window_strides, padding, preferred_element_type or rhs.dtype)

    def convolve(images: jax.Array) -> jax.Array:
        return jnp.dot(
            patches(images, rhs.shape[:2], window_strides, padding),
            rhs.reshape(-1, rhs.shape[-1]),
            precision=precision,
            preferred_element_type=preferred_element_type,
        )

    pads = _pads(lhs.shape, rhs.shape, window_strides, padding)
    height, width = (
        _outputs(lhs.shape[1 + i] + sum(pads[i]), rhs.shape[i], window_strides[i]) for i in (0, 1)
    )
    size = height * width * math.prod(rhs.shape[:3]) * lhs.dtype.itemsize
    return _by_parts(convolve, lhs, max(1, round(PATCHES / max(1, size))))


def _by_parts(fn: Callable[[jax.Array], jax.Array], images: jax.Array, size: int) -> jax.Array:
    """`fn(images)`, computed for `size` images at a time; each output row depends on one image."""
    n = len(images)
    if size >= n or runs.divides():  # parts would gather all images on one device
        return fn(images)
    again = jax.checkpoint(fn, prevent_cse=False)  # recomputed in the backward pass
    whole = n // size
    parts = lax.map(again, images[: whole * size].reshape(whole, size, *images.shape[1:]))
    done = parts.reshape(whole * size, *parts.shape[2:])
    return jnp.concatenate([done, again(images[whole * size :])]) if n % size else done


def _depthwise(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dtype: Any,
) -> jax.Array:
    """Filters each channel separately: a sum of scaled slices, in float32 or higher."""
    slices = _slices(images, kernel.shape[:2], strides, padding)
    exact = jnp.promote_types(dtype, jnp.float32)
    scales = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]).astype(exact)
    first, *others = (x * scale for x, scale in zip(slices, scales, strict=True))
    return sum(others, first).astype(dtype)


def patches(
    images: jax.Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> jax.Array:
    """`[n, out_h, out_w, kh kw c]`: the pixels that a kernel reads, in the kernel's order.

    Args:
      images: `[n, h, w, c]`.
      kernel: `(kh, kw)`.
      strides: one stride for rows, one for columns.
      padding: 'SAME', 'VALID' or `((top, bottom), (left, right))`.

    >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
    >>> patches(image, (2, 2), (1, 1), "VALID")[0, 0].tolist()
    [[0.0, 1.0, 3.0, 4.0], [1.0, 2.0, 4.0, 5.0]]
    """
    if images.shape[-1] > FEW_CHANNELS:
        return jnp.concatenate(_slices(images, kernel, strides, padding), -1)
    padded = _pad(images, kernel, strides, padding)
    rows, columns = _offsets(padded, kernel, strides)
    wide = jnp.concatenate([_cut(padded, ALL, column) for column in columns], -1)
    return jnp.concatenate([_cut(wide, row, ALL) for row in rows], -1)


def _slices(
    images: jax.Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> list[jax.Array]:
    """For each offset in the kernel, the pixels `[n, out_h, out_w, c]` that it reads."""
    padded = _pad(images, kernel, strides, padding)
    rows, columns = _offsets(padded, kernel, strides)
    return [_cut(padded, row, column) for row in rows for column in columns]


ALL = slice(None)


def _cut(images: jax.Array, row: slice, column: slice) -> jax.Array:
    """`images[:, row, column]`, which NumPy's indexing takes three times as long to trace."""
    n, h, w, c = images.shape
    (top, bottom, down), (left, right, across) = row.indices(h), column.indices(w)
    steps = None if down == across == 1 else (1, down, across, 1)
    return lax.slice(images, (0, top, left, 0), (n, bottom, right, c), steps)


def _offsets(
    padded: jax.Array, kernel: Sequence[int], strides: Sequence[int]
) -> tuple[list[slice], list[slice]]:
    """For each row and each column of the kernel, the slices of the image axes that it reads."""
    rows, columns = (
        _windows(size, *of)
        for size, of in zip(padded.shape[1:3], zip(kernel, strides, strict=True), strict=True)
    )
    return rows, columns


def _pad(
    images: jax.Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> jax.Array:
    """The images with the zero padding that `padding` asks for."""
    pads = _pads(images.shape, kernel, strides, padding)
    if not any(low or high for low, high in pads):
        return images
    return jnp.pad(images, ((0, 0), *pads, (0, 0)))


def _pads(
    images: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Sequence[tuple[int, int]]:
    """The zeros before and after the rows, and the columns, of images of shape `[n, h, w, c]`."""
    if isinstance(padding, str):
        return lax.padtype_to_pads(images[1:3], kernel[:2], strides, padding)
    return padding


def _windows(size: int, kernel: int, stride: int) -> list[slice]:
    """For each offset in the kernel, the slice of an axis that it reads."""
    reach = max(0, (_outputs(size, kernel, stride) - 1) * stride + 1)
    return [slice(offset, offset + reach, stride) for offset in range(kernel)]


def _outputs(size: int, kernel: int, stride: int) -> int:
    """The number of outputs along a padded axis."""
    return max(0, (size - kernel) // stride + 1)


CONVOLUTIONS: dict[str, Convolution] = {"im2col": im2col, "lax": lax.conv_general_dilated}


def convolution(name: str) -> Convolution:
    """The convolution of a name: 'im2col', 'lax', or 'auto', which is im2col on a CPU, else lax.

    Raises:
      ValueError: an unknown name.

    >>> convolution("lax").__name__
    'conv_general_dilated'
    """
    if name == "auto":
        name = "im2col" if jax.default_backend() == "cpu" else "lax"
    if name not in CONVOLUTIONS:
        raise ValueError(f"unknown convolution '{name}': one of auto, {', '.join(CONVOLUTIONS)}")
    return CONVOLUTIONS[name]


def lax_form(net: Net) -> Net:
    """The net with its convolutions, if their form is a choice, as single operations.

    Channels and costs do not change; the jaxpr has far fewer equations, and no blocks that are
    computed again. Other models stay as they are.

    >>> from jaxtickets import nets
    >>> lax_form(nets.make("lenet5")).conv
    'lax'
    """
    if isinstance(net, nn.Module) and getattr(net, "conv", None) in ("auto", *CONVOLUTIONS):
        changes: dict[str, Any] = {"conv": "lax"}
        if getattr(net, "remat", False):
            changes["remat"] = False
        return net.clone(**changes)
    return net


def max_pool2(images: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows, stride 2: `[n, h, w, c]` -> `[n, h // 2, w // 2, c]`.

    An odd last row or column is dropped ('VALID'). The gradient goes to the first of the entries of
    a window that equal its maximum, row by row, as that of `reduce_window` does.

    >>> max_pool2(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    n, h, w, c = images.shape
    even = images[:, : h // 2 * 2, : w // 2 * 2]
    return _window_max(even.reshape(n, h // 2, 2, w // 2, 2, c))


@jax.custom_jvp
def _window_max(windows: jax.Array) -> jax.Array:
    """The maximum of each window: `[n, h, 2, w, 2, c]` -> `[n, h, w, c]`."""
    return windows.max((2, 4))


@_window_max.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # `max` itself shares the gradient among the entries that equal the maximum. A compiler may
    # compute entries and maximum apart, rounded otherwise, so that none is equal: 0 / 0.
    (windows,), (tangent,) = primals, tangents
    left = windows[:, :, :, :, :1] >= windows[:, :, :, :, 1:]
    rows = jnp.where(left, windows[:, :, :, :, :1], windows[:, :, :, :, 1:])
    upper = rows[:, :, :1] >= rows[:, :, 1:]
    first_row = lax.broadcasted_iota(jnp.int32, windows.shape, 2) == 0
    first_column = lax.broadcasted_iota(jnp.int32, windows.shape, 4) == 0
    chosen = (first_row == upper) & (first_column == left)
    return _window_max(windows), jnp.sum(jnp.where(chosen, tangent, 0), (2, 4))


def max_pool(images: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over windows that may overlap: `[n, h, w, c]` -> `[n, out_h, out_w, c]`.

    Each side is padded with `padding` pixels that are never a maximum. `max_pool2` is faster for
    2x2 windows that do not overlap.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), window=3, stride=1)[0, :, :, 0].tolist()
    [[10.0, 11.0], [14.0, 15.0]]
    """
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(
        images, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), sides
    )
