"""The two forms of some nets: for small images, such as CIFAR's, and for ImageNet's."""

from collections.abc import Sequence

FORMS = ("small", "large")
"""The values of the attribute `form`: stem and head for images of about 32 or 224 pixels a side."""

LARGE = 96
"""The fewest pixels on the shorter side of a large image."""


def form_of(shape: Sequence[int]) -> str:
    """The form for images of `shape` `(h, w, c)`: 'large' from 96 pixels on the shorter side.

    >>> form_of((32, 32, 3)), form_of((224, 224, 3))
    ('small', 'large')
    """
    return "large" if min(shape[:2]) >= LARGE else "small"
