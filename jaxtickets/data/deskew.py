"""Deskewing: images of digits are sheared until they stand upright."""

import jax
import jax.numpy as jnp

from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array


def deskew(images: Array) -> Array:
    """Shears each image by its slant, about its centre of mass.

        out(y, x) = in(y, x + slant (y - mean y)),    slant = cov(x, y) / var(y)

    Moments are weighted by the pixels' values. Pixels between two of a row are interpolated
    linearly, those beyond the border are 0. An image without extent in y stays as it is.

    Args:
      images: float32`[n, h, w]`, 0 or more, 0 being the background.

    Returns:
      float32`[n, h, w]`.

    >>> deskew(np.eye(3, dtype="float32")[None])[0].tolist()
    [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """
    check_array("the images to deskew", images, ("n", "h", "w"), float)
    return jax.vmap(_deskew_one)(images)


def _deskew_one(image: Array) -> Array:
    height, width = image.shape
    y, x = (axis.astype(image.dtype) for axis in jnp.mgrid[:height, :width])
    mass = jnp.maximum(jnp.sum(image), 1e-12)

    def mean(values: Array) -> Array:
        return jnp.sum(image * values) / mass

    middle_y, middle_x = mean(y), mean(x)
    variance = mean((y - middle_y) ** 2)
    covariance = mean((y - middle_y) * (x - middle_x))
    slant = jnp.where(variance > 1e-6, covariance / jnp.maximum(variance, 1e-6), 0.0)

    place = x + slant * (y - middle_y)
    left = jnp.floor(place)
    share = place - left

    def pixels(column: Array) -> Array:
        inside = (column >= 0) & (column < width)
        at = jnp.clip(column, 0, width - 1).astype(jnp.int32)
        return jnp.where(inside, jnp.take_along_axis(image, at, axis=1), 0)

    return (1 - share) * pixels(left) + share * pixels(left + 1)
