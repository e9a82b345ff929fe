"""Normalisation, random crops and random flips on the device, one batch at a time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """`(images / 255 - mean) / std`.

    Args:
      images: uint8`[..., h, w, c]`.
      mean, std: `c` per-channel statistics of pixels scaled to [0, 1].

    Returns:
      float32`[..., h, w, c]`.
    """
    leading = (1,) * (images.ndim - 1)
    centre = jnp.asarray(mean, jnp.float32).reshape(*leading, -1)
    spread = jnp.asarray(std, jnp.float32).reshape(*leading, -1)
    return (images.astype(jnp.float32) / 255 - centre) / spread


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability 1/2; the key is consumed.

    Args:
      key: a key.
      images: `[n, h, w, c]` of any dtype.

    Returns:
      Images of the same shape and dtype.
    """
    mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def pad_and_crop(key: jax.Array, images: jax.Array, pad: int = 4) -> jax.Array:
    """Pads each image with zeros and crops a random window of its own size; the key is consumed.

    The two offsets are uniform on `0 .. 2 pad`. Zero is black in uint8 images, as in torchvision,
    and the mean in normalised ones.

    Args:
      key: consumed.
      images: `[n, h, w, c]` of any dtype.
      pad: the number of pixels added on each side, static.

    Returns:
      Images of the same shape and dtype.

    Source: He et al. 2016, arXiv:1512.03385, section 4.2, who subtract the mean before they pad.
    """
    n, *shape = images.shape
    offsets = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    # On a CPU, 3 times as fast as a gather of pixels and 80 times as fast as a select over shifts.
    def window(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), shape)

    return jax.vmap(window)(padded, offsets)


def standard(key: jax.Array, images: jax.Array) -> jax.Array:
    """CIFAR's standard augmentation: `pad_and_crop` by 4 pixels, then `flip`; key consumed.

    Args:
      key: a key.
      images: `[n, h, w, c]` of any dtype.

    Returns:
      Images of the same shape and dtype.

    Source: He et al. 2016, arXiv:1512.03385, section 4.2.
    """
    crop_key, flip_key = jax.random.split(key)
    return flip(flip_key, pad_and_crop(crop_key, images))
