"""Convolution and pooling in the forms that are fast where they run: one choice in one place.

On a CPU `lax.conv_general_dilated` inside `scan` is very slow, and slower still when `vmap` over
the runs turns it into a grouped convolution; slices and a matrix product are not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Convolution = Callable[..., jax.Array]
"""A function with the signature of `lax.conv_general_dilated`, as `flax.linen.Conv` takes it."""

LAYOUT = ("NHWC", "HWIO", "NHWC")


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
    """2-D convolution as one matrix product of image patches with the kernel.

    `out[n, y, x, o] = sum_(i, j, c) lhs[n, s y + i, s x + j, c] rhs[i, j, c, o]`

    The patches take `kh * kw` times the memory of the input, and are kept for the backward pass.
    A depthwise convolution, `out[n, y, x, c] = sum_(i, j) lhs[n, s y + i, s x + j, c]
    rhs[i, j, 0, c]`, has no matrix product: it is a sum of `kh * kw` slices, each scaled.

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
    kernel_h, kernel_w, _, features = rhs.shape
    padded = _pad(lhs, (kernel_h, kernel_w), window_strides, padding)
    rows, out_h = _windows(padded.shape[1], kernel_h, window_strides[0])
    columns, out_w = _windows(padded.shape[2], kernel_w, window_strides[1])
    slices = [padded[:, row, column] for row in rows for column in columns]
    if depthwise:
        scales = rhs.reshape(-1, 1, 1, 1, features).astype(preferred_element_type or rhs.dtype)
        first, *others = (x * scale for x, scale in zip(slices, scales, strict=True))
        return sum(others, first)
    patches = jnp.concatenate(slices, -1)
    product = jnp.dot(
        patches.reshape(-1, patches.shape[-1]),
        rhs.reshape(-1, features),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return product.reshape(lhs.shape[0], out_h, out_w, features)


def _pad(
    images: jax.Array,
    kernel: tuple[int, int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> jax.Array:
    """Images with the zeros around them that `padding` asks for."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], kernel, strides, padding)
    if not any(low or high for low, high in padding):
        return images
    return jnp.pad(images, ((0, 0), *padding, (0, 0)))


def _windows(size: int, kernel: int, stride: int) -> tuple[list[slice], int]:
    """For each offset in the kernel the slice of an axis that it meets, and the output's size."""
    out = max(0, (size - kernel) // stride + 1)
    reach = max(0, (out - 1) * stride + 1)
    return [slice(offset, offset + reach, stride) for offset in range(kernel)], out


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
