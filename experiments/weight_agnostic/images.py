"""The images of a data set as the inputs of graphs: one float for each pixel."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.harness.flags import RunSettings
from experiments.weight_agnostic.settings import ImageSettings
from jaxtickets import data
from jaxtickets.data.deskew import deskew
from jaxtickets.io.errors import UserError
from jaxtickets.types import Array, Dataset, Split


class Images(NamedTuple):
    """Images in rows: float32`[n, pixels]` from 0 to 1, in `Split`s with their labels.

    Attributes:
      train, validation, test: disjoint.
      side: pixels of a side.
      classes: the number of classes.
    """

    train: Split
    validation: Split
    test: Split
    side: int
    classes: int


def side_of(settings: ImageSettings) -> int:
    """Pixels of a side after the images are made smaller.

    Raises:
      UserError: they can't be made so, or aren't square and grey.
    """
    height, width, channels = data.shape(settings.dataset)
    size = f"{settings.dataset} has images of {height}x{width} pixels in {channels} channels"
    if channels != 1 or height != width:
        raise UserError(f"--dataset={settings.dataset}: {size}, and graphs take square, grey ones")
    if settings.side > height:
        raise UserError(f"--side={settings.side}: {size}, give {height} or less")
    return settings.side or height


def load(settings: ImageSettings, place: RunSettings) -> Images:
    """The images of the data set, deskewed and made smaller.

    Raises:
      UserError: see `side_of`.
      DataError: the data set can't be loaded.
    """
    side = side_of(settings)
    loaded: Dataset = data.load(settings.dataset, place.data_dir or None, place.prepare)

    @jax.jit
    def prepared(images: Array) -> Array:
        values = images[..., 0].astype(jnp.float32) / 255
        values = deskew(values) if settings.deskew else values
        if side != values.shape[1]:
            values = jax.image.resize(values, (len(values), side, side), "linear")
        return values.reshape(len(values), -1)

    def split(part: Split) -> Split:
        n = len(part.labels)
        block = math.gcd(n, 5000)  # one program for splits of several sizes
        rows = [prepared(part.images[i : i + block]) for i in range(0, n, block)]
        return Split(jnp.concatenate(rows), jnp.asarray(part.labels))

    return Images(
        train=split(loaded.train),
        validation=split(loaded.validation),
        test=split(loaded.test),
        side=side,
        classes=loaded.classes,
    )
