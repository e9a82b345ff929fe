"""Convolution and pooling in the forms that are fast where they run: one choice in one place.

On a CPU `lax.conv_general_dilated` inside `scan` is very slow, and slower still when `vmap` over
the runs turns it into a grouped convolution; slices and a matrix product are not, as long as the
slices of a few images at a time stay in the cache.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxtickets import runs

Convolution = Callable[..., jax.Array]
"""A function with the signature of `lax.conv_general_dilated`, as `flax.linen.Conv` takes it."""

LAYOUT = ("NHWC", "HWIO", "NHWC")

PATCHES = 2**21
"""Bytes of patches at a time, what a core's cache holds. On two cores of an AMD EPYC a 3x3
convolution of 60 images of 32x32 with 64 channels, forward and backward, reaches 0.35 of the rate
of matrix products with all patches at once, and 0.40, 0.60, 0.58, 0.72 with half a MiB to 4; of 128
such images with 16 channels 0.14, and 0.24, 0.33, 0.41, 0.36."""

FEW_CHANNELS = 4
"""Up to so many, patches are made of `kw` slices and then of `kh`, not of `kh kw` at once: the same
patches in a program that compiles in half of the time and runs a little faster. With more channels
it runs slower, down to half."""


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

    The patches take `kh * kw` times the memory of the input. They are made of some images at a
    time, see `PATCHES`, and made again in the backward pass rather than kept; where all fit at
    once there is one product, whose patches are kept. A depthwise convolution,
    `out[n, y, x, c] = sum_(i, j) lhs[n, s y + i, s x + j, c] rhs[i, j, 0, c]`, has no matrix
    product: it is a sum of `kh * kw` slices, each scaled.

    Args:
      lhs: images `[n, h, w, c]`.
      rhs: kernel `[kh, kw, c, o]`, or `[kh, kw, 1, c]` if depthwise.
      window_strides: one stride for rows, one for columns.
      padding: 'SAME', 'VALID' or `((top, bottom), (left, right))`, none negative.
      lhs_dilation: None or ones.
      rhs_dilation: None or ones.
      dimension_numbers: must stand for ('NHWC', 'HWIO', 'NHWC').
      feature_group_count: 1, or `c` for a depthwise convolution of one filter a channel.
      batch_group_count: 1.
      precision: of the matrix product.
      preferred_element_type: of the matrix product.

    Returns:
      `[n, out_h, out_w, o]`, as `lax.conv_general_dilated` to float tolerance.

    Raises:
      NotImplementedError: for dilation, groups, another layout, or a number of dimensions not 2.
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
        patches = _patches(images, rhs.shape[:2], window_strides, padding)
        return jnp.dot(
            patches,
            rhs.reshape(-1, rhs.shape[-1]),
            precision=precision,
            preferred_element_type=preferred_element_type,
        )

    one = jax.eval_shape(convolve, jax.ShapeDtypeStruct((1, *lhs.shape[1:]), lhs.dtype))
    patches = one.size * math.prod(rhs.shape[:3]) // rhs.shape[3] * lhs.dtype.itemsize
    return _by_parts(convolve, lhs, max(1, round(PATCHES / max(1, patches))))


def _by_parts(fn: Callable[[jax.Array], jax.Array], images: jax.Array, size: int) -> jax.Array:
    """`fn(images)`, whose rows depend on one image each, of `size` images at a time."""
    n = len(images)
    if size >= n or runs.divides():  # a device has its share alone: parts would gather all
        return fn(images)
    again = jax.checkpoint(fn, prevent_cse=False)  # what it makes is not kept for the gradient
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
    """Each channel by its own filter: a sum of scaled slices."""
    slices = _slices(images, kernel.shape[:2], strides, padding)
    scales = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]).astype(dtype)
    first, *others = (x * scale for x, scale in zip(slices, scales, strict=True))
    return sum(others, first)


def _patches(
    images: jax.Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> jax.Array:
    """`[n, out_h, out_w, kh kw c]`: the slices side by side, in the kernel's order."""
    if images.shape[-1] > FEW_CHANNELS:
        return jnp.concatenate(_slices(images, kernel, strides, padding), -1)
    padded = _pad(images, kernel, strides, padding)
    rows, columns = _offsets(padded, kernel, strides)
    wide = jnp.concatenate([padded[:, :, column] for column in columns], -1)
    return jnp.concatenate([wide[:, row] for row in rows], -1)


def _slices(
    images: jax.Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> list[jax.Array]:
    """`[n, out_h, out_w, c]` for each offset in the kernel: what it meets at all positions."""
    padded = _pad(images, kernel, strides, padding)
    rows, columns = _offsets(padded, kernel, strides)
    return [padded[:, row, column] for row in rows for column in columns]


def _offsets(
    padded: jax.Array, kernel: Sequence[int], strides: Sequence[int]
) -> tuple[list[slice], list[slice]]:
    """For each row and each column of the kernel the slices of the image's axes that it meets."""
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
    """Images with the zeros around them that `padding` asks for."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], kernel, strides, padding)
    if not any(low or high for low, high in padding):
        return images
    return jnp.pad(images, ((0, 0), *padding, (0, 0)))


def _windows(size: int, kernel: int, stride: int) -> list[slice]:
    """For each offset in the kernel the slice of an axis that it meets."""
    out = max(0, (size - kernel) // stride + 1)
    reach = max(0, (out - 1) * stride + 1)
    return [slice(offset, offset + reach, stride) for offset in range(kernel)]


CONVOLUTIONS: dict[str, Convolution] = {"im2col": im2col, "lax": lax.conv_general_dilated}


def convolution(name: str) -> Convolution:
    """The convolution called `name`: 'im2col', 'lax', or 'auto': im2col on a CPU, else lax.

    Raises:
      ValueError: the name is none of these.
    """
    if name == "auto":
        name = "im2col" if jax.default_backend() == "cpu" else "lax"
    if name not in CONVOLUTIONS:
        raise ValueError(f"unknown convolution '{name}': one of auto, {', '.join(CONVOLUTIONS)}")
    return CONVOLUTIONS[name]


def lax_form(net: nn.Module) -> nn.Module:
    """The net with its convolutions, where it has a choice, as single operations.

    The other form has the same channels and costs, and many more equations.
    """
    if getattr(net, "conv", None) in ("auto", *CONVOLUTIONS):
        return net.clone(conv="lax")
    return net


def max_pool2(images: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows, stride 2: `[n, h, w, c]` -> `[n, h // 2, w // 2, c]`.

    An odd last row or column is dropped ('VALID'). Where several entries of a window are its
    maximum, the gradient is split evenly among them, while `reduce_window` gives it all to the
    first; after a ReLU, whose gradient at 0 is 0, the common tie of zeros makes no difference.
    """
    n, h, w, c = images.shape
    even = images[:, : h // 2 * 2, : w // 2 * 2]
    return even.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def max_pool(images: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over windows that may overlap: `[n, h, w, c]` -> `[n, out_h, out_w, c]`.

    `padding` pixels that are never a maximum stand on each side. Where windows don't overlap,
    `max_pool2` is the faster form.
    """
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(
        images, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), sides
    )
