"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 in prepared TFDS folders, without TensorFlow."""

from os import PathLike
from pathlib import Path

import numpy as np

from jaxtickets.data import cache, records
from jaxtickets.data import folder as folders
from jaxtickets.data.errors import DataError
from jaxtickets.data.prepare import prepare as prepare_folder
from jaxtickets.data.sources import SPLIT_SEED, Source
from jaxtickets.types import Dataset, Split


def load(source: Source, data_dir: str | PathLike[str] | None, prepare: bool) -> Dataset:
    """The data set in TFDS's fixed order, with a validation set taken from its training set.

    TFDS shuffles once while preparing, so its first 2,000 images are not the first of the original
    files.

    Args:
      source: the set.
      data_dir: the folder of prepared TFDS data; None for TFDS's own folder.
      prepare: whether to prepare a set that is not prepared yet.

    Raises:
      DataError: the set is not prepared (detected without importing TFDS), cannot be prepared, or
        is damaged.

    >>> from jaxtickets.data.sources import MNIST
    >>> load(MNIST, data_dir="nowhere", prepare=False)
    Traceback (most recent call last):
    jaxtickets.data.errors.DataError: --data_dir=nowhere is missing: run with --prepare
    (needs TensorFlow: pip install '.[prepare]' in the checkout of jaxtickets), or
    pass --data_dir=FOLDER of a prepared TFDS folder, or use --dataset=mnist5k
    """
    folder = prepared_folder(source, data_dir, prepare)
    train, test = _decoded(source, folder)
    rest, validation = cut(len(train.labels), source.validation)
    return Dataset(
        name=source.name,
        train=Split(train.images[rest], train.labels[rest]),
        validation=Split(train.images[validation], train.labels[validation]),
        test=test,
        mean=source.mean,
        std=source.std,
        classes=source.classes,
    )


def cut(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending indices int64`[n - size]`, int64`[size]`: a fixed random split of `n` examples.

    >>> rest, held_out = cut(5, 2)
    >>> len(rest), len(held_out), sorted(rest.tolist() + held_out.tolist())
    (3, 2, [0, 1, 2, 3, 4])
    """
    held_out = np.random.default_rng(SPLIT_SEED).permutation(n)[:size]
    return np.setdiff1d(np.arange(n), held_out), np.sort(held_out)


def prepared_folder(source: Source, data_dir: str | PathLike[str] | None, prepare: bool) -> Path:
    """The folder of a set's newest version, whose description fits the set; arguments of `load`.

    Raises:
      DataError: the set is not prepared, cannot be prepared, or its description is damaged.

    >>> import json
    >>> import tempfile
    >>> source = Source("tiny", (8, 8, 1), 2, (0.5,), (0.5,), train=7, validation=3, test=5)
    >>> splits = [{"name": "train", "shardLengths": [10]}, {"name": "test", "shardLengths": [5]}]
    >>> with tempfile.TemporaryDirectory() as base:
    ...     Path(base, "tiny", "1.0.0").mkdir(parents=True)
    ...     with open(Path(base, "tiny", "1.0.0", "dataset_info.json"), "w") as file:
    ...         json.dump({"fileFormat": "array_record", "splits": splits}, file)
    ...     found = prepared_folder(source, base, prepare=False)
    >>> found.name
    '1.0.0'
    """
    base = folders.root(data_dir)
    folder = folders.find(source, base)
    if folder is None and prepare:
        prepare_folder(source, base)
        folder = folders.find(source, base)
    if folder is not None:
        folders.check_folder(source, folder)
        return folder
    if data_dir is not None and not base.is_dir():
        raise DataError(f"--data_dir={base} is missing: {folders.HOW_TO_GET}")
    raise DataError(f"{source.name} is not prepared in {base}: {folders.HOW_TO_GET}")


def _decoded(source: Source, folder: Path) -> tuple[Split, Split]:
    mark = cache.fingerprint(folder)
    kept = cache.load(source, mark)
    if kept is not None:
        return kept
    train, test = records.read(source, folder)
    cache.save(source, mark, train, test)
    return train, test
