"""Variants of a data set: half of its classes or images, and images with every pixel changed.

`mnist5k:inverted` names the variant `inverted` of `mnist5k`. Halves keep the `mean` and `std` of
the whole; changed pixels have those of their own training images. Morcos et al., "One ticket to win
them all", 2019, section 4.1, halve CIFAR-10 by classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.data import shifts
from jaxtickets.data.sources import SPLIT_SEED
from jaxtickets.keys import stream
from jaxtickets.types import Array, Dataset, Split

DEGREES = 90.0
"""The angle of `rotated`, counterclockwise."""
DEVIATION = 0.3
"""The standard deviation of the noise of `noisy`, in units of white."""
SPLITS = ("train", "validation", "test")


class Variant(NamedTuple):
    """A variant of data sets.

    Attributes:
      change: `change(dataset) -> dataset`, always the same for the same data set; it leaves `name`.
      classes: `classes(number of the data set's classes) -> number of its own`.
    """

    change: Callable[[Dataset], Dataset]
    classes: Callable[[int], int] = lambda number: number


def first_classes(dataset: Dataset) -> Dataset:
    """The examples of the classes below `classes // 2`.

    >>> images = np.array([0, 0, 255, 255], "uint8").reshape(4, 1, 1, 1)
    >>> split = Split(images, labels=np.array([0, 1, 2, 3]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=4)
    >>> first_classes(dataset).train.labels.tolist()
    [0, 1]
    """
    return _of_classes(dataset, 0, dataset.classes // 2)


def second_classes(dataset: Dataset) -> Dataset:
    """The examples of the other classes, which are numbered from 0 again.

    >>> images = np.array([0, 0, 255, 255], "uint8").reshape(4, 1, 1, 1)
    >>> split = Split(images, labels=np.array([0, 1, 2, 3]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=4)
    >>> half = second_classes(dataset)
    >>> half.train.labels.tolist(), half.train.images.ravel().tolist()
    ([0, 1], [255, 255])
    """
    return _of_classes(dataset, dataset.classes // 2, dataset.classes)


def first_images(dataset: Dataset) -> Dataset:
    """The first half of the training images; validation and test images stay.

    >>> images = np.array([0, 0, 255, 255], "uint8").reshape(4, 1, 1, 1)
    >>> split = Split(images, labels=np.array([0, 1, 2, 3]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=4)
    >>> half = first_images(dataset)
    >>> half.train.labels.tolist(), half.test.labels.tolist()
    ([0, 1], [0, 1, 2, 3])
    """
    half = len(dataset.train.labels) // 2
    return dataset._replace(train=Split(*(array[:half] for array in dataset.train)))


def second_images(dataset: Dataset) -> Dataset:
    """The second half of the training images; validation and test images stay.

    >>> images = np.array([0, 0, 255, 255], "uint8").reshape(4, 1, 1, 1)
    >>> split = Split(images, labels=np.array([0, 1, 2, 3]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=4)
    >>> half = second_images(dataset)
    >>> half.train.labels.tolist(), half.test.labels.tolist()
    ([2, 3], [0, 1, 2, 3])
    """
    half = len(dataset.train.labels) // 2
    return dataset._replace(train=Split(*(array[half : 2 * half] for array in dataset.train)))


def inverted(dataset: Dataset) -> Dataset:
    """The negatives of all images.

    >>> images = np.array([0, 0, 255, 255], "uint8").reshape(4, 1, 1, 1)
    >>> split = Split(images, labels=np.array([0, 1, 2, 3]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=4)
    >>> inverted(dataset).train.images.ravel().tolist()
    [255, 255, 0, 0]
    """
    return _of_pixels(dataset, lambda part, images: shifts.inverted(images))


def rotated(dataset: Dataset) -> Dataset:
    """All images turned by `DEGREES`.

    >>> split = Split(np.array([[1, 2], [3, 4]], "uint8").reshape(1, 2, 2, 1), np.array([0]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=2)
    >>> rotated(dataset).train.images[0, :, :, 0].tolist()
    [[2, 4], [1, 3]]
    """

    def turn(image: Array) -> jax.Array:
        return shifts.rotate(image[None], DEGREES)[0]

    turn_all = jax.jit(lambda images: jax.lax.map(turn, images, batch_size=500))
    return _of_pixels(dataset, lambda part, images: turn_all(images))


def noisy(dataset: Dataset) -> Dataset:
    """All images with Gaussian noise of deviation `DEVIATION`, the same noise in every epoch.

    >>> images = np.array([0, 0, 255, 255], "uint8").reshape(4, 1, 1, 1)
    >>> split = Split(images, labels=np.array([0, 1, 2, 3]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=4)
    >>> once, again = noisy(dataset).train.images, noisy(dataset).train.images
    >>> np.array_equal(once, again), np.array_equal(once, dataset.train.images)
    (True, False)
    """

    def disturb(part: str, images: Array) -> jax.Array:
        return shifts.noisy(stream(SPLIT_SEED, "image_noise", part), images, DEVIATION)

    return _of_pixels(dataset, disturb)


VARIANTS: dict[str, Variant] = {
    "first_classes": Variant(first_classes, lambda number: number // 2),
    "second_classes": Variant(second_classes, lambda number: number - number // 2),
    "first_images": Variant(first_images),
    "second_images": Variant(second_images),
    "inverted": Variant(inverted),
    "rotated": Variant(rotated),
    "noisy": Variant(noisy),
}


def variant_of(dataset: Dataset, variant: str) -> Dataset:
    """The variant of a data set, named `DATASET:VARIANT`.

    Args:
      dataset: the data set, on the host.
      variant: one of `VARIANTS`.

    Raises:
      ValueError: there is no such variant, or a half would be empty.

    >>> images = np.array([0, 0, 255, 255], "uint8").reshape(4, 1, 1, 1)
    >>> split = Split(images, labels=np.array([0, 1, 2, 3]))
    >>> dataset = Dataset("tiny", split, split, split, mean=(0.5,), std=(0.5,), classes=4)
    >>> half = variant_of(dataset, "first_classes")
    >>> half.name, half.classes
    ('tiny:first_classes', 2)
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: use one of {', '.join(VARIANTS)}")
    made = VARIANTS[variant].change(dataset)
    if not all(len(getattr(made, name).labels) for name in SPLITS):
        raise ValueError(f"{dataset.name} has too few examples or classes for {variant}")
    return made._replace(name=f"{dataset.name}:{variant}")


def _of_classes(dataset: Dataset, first: int, end: int) -> Dataset:
    def part(split: Split) -> Split:
        labels = np.asarray(split.labels)
        mine = (labels >= first) & (labels < end)
        return Split(np.asarray(split.images)[mine], labels[mine] - first)

    train, validation, test = (part(getattr(dataset, name)) for name in SPLITS)
    return dataset._replace(train=train, validation=validation, test=test, classes=end - first)


def _of_pixels(dataset: Dataset, change: Callable[[str, Array], Array]) -> Dataset:
    """The data set with `change(split's name, images)` in place of the images, rounded to uint8."""

    def part(name: str) -> Split:
        split = getattr(dataset, name)
        changed = jnp.round(jnp.asarray(change(name, split.images))).astype(jnp.uint8)
        return Split(np.asarray(changed), split.labels)

    train, validation, test = (part(name) for name in SPLITS)
    mean, std = _statistics(train.images)
    return dataset._replace(train=train, validation=validation, test=test, mean=mean, std=std)


def _statistics(images: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, pixels scaled to [0, 1]; no deviation is 0."""
    pixels = np.asarray(images).reshape(-1, np.shape(images)[-1])
    mean = pixels.mean(0, dtype=float) / shifts.WHITE
    std = pixels.std(0, dtype=float) / shifts.WHITE
    return tuple(map(float, mean)), tuple(float(one) or 1.0 for one in std)
