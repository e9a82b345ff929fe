"""Nets that have two published forms: one for small images, as CIFAR's, and one for ImageNet's."""

from collections.abc import Sequence

FORMS = ("small", "large")
"""What the attribute `form` may be: a stem and an end for images of about 32 or 224 pixels."""

LARGE = 96
"""Images with at least so many pixels on their shorter side are large."""


def form_of(shape: Sequence[int]) -> str:
    """The form that suits images of `shape` `(h, w, c)`: 'large' from 96 pixels a side."""
    return "large" if min(shape[:2]) >= LARGE else "small"
