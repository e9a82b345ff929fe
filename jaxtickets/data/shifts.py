"""Images that a classifier was not trained on: rotated, noisy, inverted."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

WHITE = 255


def rotate(images: jax.Array, degrees: jax.Array | float) -> jax.Array:
    """Rotates each image about its centre, counterclockwise as displayed with row 0 at the top.

    Pixels are interpolated bilinearly, and are 0 (black) beyond the image.

    Args:
      images: `[n, h, w, c]`, of which `h` and `w` may differ.
      degrees: the angle, a scalar; may be traced.

    Returns:
      float32`[n, h, w, c]`.

    >>> image = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    >>> np.round(rotate(image, degrees=90)[0, :, :, 0]).tolist()
    [[2.0, 4.0], [1.0, 3.0]]
    """
    _, height, width, _ = images.shape
    row, column = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    angle = jnp.deg2rad(degrees)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    # the place from which each pixel of the result is read
    source = [
        cosine * row + sine * column + (height - 1) / 2,
        cosine * column - sine * row + (width - 1) / 2,
    ]

    def plane(pixels: jax.Array) -> jax.Array:
        return map_coordinates(pixels, source, order=1, mode="constant", cval=0.0)

    over_channels = jax.vmap(plane, in_axes=-1, out_axes=-1)
    return jax.vmap(over_channels)(images.astype(jnp.float32))


def noisy(key: jax.Array, images: jax.Array, deviation: jax.Array | float) -> jax.Array:
    """Adds Gaussian noise to each pixel, and clips to 0 .. 255; the key is consumed.

    Args:
      key: for the noise.
      images: `[n, h, w, c]`, of pixels from 0 to 255.
      deviation: that of the noise, in units of the whole range: 1 is 255; may be traced.

    Returns:
      float32`[n, h, w, c]`.

    >>> images = noisy(jax.random.key(0), np.zeros((1, 8, 8, 1)), deviation=0.1)
    >>> float(images.min()), bool((images > 0).any())
    (0.0, True)
    """
    noise = jax.random.normal(key, images.shape, jnp.float32)
    return jnp.clip(images.astype(jnp.float32) + WHITE * deviation * noise, 0, WHITE)


def inverted(images: jax.Array) -> jax.Array:
    """The negatives: 255 minus each pixel of uint8`[n, h, w, c]`; of the same type.

    >>> inverted(np.array([0, 55, 255], "uint8")).tolist()
    [255, 200, 0]
    """
    return WHITE - images
