"""Shifted images: rotations by hand, noise by its moments, negatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.data import shifts


def image(rows):
    """uint8`[1, h, w, 1]`."""
    return jnp.asarray(rows, jnp.uint8)[None, :, :, None]


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (90, [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),  # counterclockwise: the right column is on top
        (180, [[9, 8, 7], [6, 5, 4], [3, 2, 1]]),
        (-90, [[7, 4, 1], [8, 5, 2], [9, 6, 3]]),
    ],
)
def test_right_angles_move_pixels_as_by_hand(degrees, expected):
    turned = shifts.rotate(image([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), degrees)
    np.testing.assert_allclose(turned[0, :, :, 0], expected, atol=1e-4)


def test_between_pixels_a_rotation_interpolates_and_beyond_the_image_it_is_black():
    # the corner (-1, -1) is read sqrt(2) from the centre, straight above it or beside it: beyond
    turned = shifts.rotate(image(np.full((3, 3), 100)), 45)[0, :, :, 0]
    assert float(turned[1, 1]) == pytest.approx(100)
    assert float(turned[0, 0]) == pytest.approx(100 * (2 - np.sqrt(2)), abs=1e-3)


def test_channels_and_images_turn_alike_under_a_traced_angle():
    pixels = jax.random.randint(jax.random.key(0), (2, 4, 6, 3), 0, 256).astype(jnp.uint8)
    turned = jax.jit(shifts.rotate)(pixels, 30.0)
    alone = shifts.rotate(pixels[1:, :, :, 2:], 30.0)
    np.testing.assert_allclose(turned[1:, :, :, 2:], alone, atol=1e-3)
    assert turned.shape == pixels.shape and turned.dtype == jnp.float32


def test_noise_has_its_deviation_and_stays_within_the_range():
    grey = jnp.full((4, 50, 50, 1), 128, jnp.uint8)
    little = np.asarray(shifts.noisy(jax.random.key(1), grey, 0.1))
    assert little.std() == pytest.approx(25.5, rel=0.03)
    assert little.mean() == pytest.approx(128, abs=1)
    much = np.asarray(shifts.noisy(jax.random.key(1), grey, 5.0))
    assert (much.min(), much.max()) == (0, 255)
    np.testing.assert_array_equal(shifts.noisy(jax.random.key(1), grey, 0.0), grey)


def test_negatives():
    np.testing.assert_array_equal(
        shifts.inverted(image([[0, 255], [10, 128]]))[0, :, :, 0], [[255, 0], [245, 127]]
    )
