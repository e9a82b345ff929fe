"""digits: 1,797 scanned digits of 8x8 pixels in 17 grey levels, from scikit-learn's wheel.

Alpaydin and Kaynak, "Optical recognition of handwritten digits", 1998 (its test set).
"""

from os import PathLike

import numpy as np

from jaxtickets.data import bundled
from jaxtickets.data.sources import SPLIT_SEED, Source
from jaxtickets.types import Dataset, Split

LEVELS = 16
"""The brightest grey level of the file, which becomes 255."""


def load(source: Source, data_dir: str | PathLike[str] | None, prepare: bool) -> Dataset:
    """The bundled images in a fixed random split.

    Args:
      source: that of `"digits"`.
      data_dir, prepare: ignored.

    Raises:
      DataError: scikit-learn's data file is missing or damaged.

    >>> from jaxtickets.data.sources import SOURCES
    >>> digits = load(SOURCES["digits"], data_dir=None, prepare=False)
    >>> digits.train.images.shape, digits.test.images.shape, int(digits.train.images.max())
    ((1097, 8, 8, 1), (400, 8, 8, 1), 255)
    """
    del data_dir, prepare
    pixels, labels = bundled.table(source, "sklearn", ("datasets", "data", "digits.csv.gz"))
    scaled = np.round(pixels * (255 / LEVELS)).astype(np.uint8)
    images = scaled.reshape(-1, *source.shape)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    ends = np.cumsum([source.train, source.validation])
    train, validation, test = (Split(images[i], labels[i]) for i in np.split(order, ends))
    return Dataset(source.name, train, validation, test, source.mean, source.std, source.classes)
