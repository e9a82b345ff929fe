"""A folder of photographs with one folder for each class, such as `train/n01440764/x.JPEG`."""

import os
from functools import partial
from os import PathLike
from pathlib import Path

from jaxtickets.data import examples as stored
from jaxtickets.data import tfds
from jaxtickets.data.errors import DataError, ImageError, reason
from jaxtickets.data.examples import Encoded, Examples, StreamedDataset
from jaxtickets.data.sources import IMAGENET

SUFFIXES = (".jpg", ".jpeg", ".png")
"""The endings of the names of photographs, in capitals or not."""
HELD_OUT = 20
"""One of so many training examples is held out."""


def load(
    folder: str | PathLike[str], validation: int = 0, train: str = "train", test: str = "val"
) -> StreamedDataset:
    """A data set in two folders, with ImageNet's statistics of colours.

    Args:
      folder: that of both.
      validation: the number of training examples that are held out; 0: one of `HELD_OUT`, but no
        more than for ImageNet.
      train, test: the names of the two folders.

    Raises:
      DataError: see `open_folder`; the two have other classes; or nothing is left to train on.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
    ...         Path(folder, name).mkdir(parents=True)
    ...         Path(folder, name, "1.jpg").touch()
    ...     photographs = load(folder, validation=1)
    >>> photographs.train.total, photographs.validation.total, photographs.test.total
    (1, 1, 2)
    """
    base = Path(folder)
    both, held_out = open_folder(base / train), open_folder(base / test)
    names = [_classes(base / part) for part in (train, test)]
    if names[0] != names[1]:
        differing = sorted(set(names[0]) ^ set(names[1]))
        raise DataError(f"{base}: only {train} or only {test} has the class {differing[0]}")
    validation = validation or min(-(-both.total // HELD_OUT), IMAGENET.validation)
    if not 0 < validation < both.total:
        raise DataError(f"{base / train}: {validation} of {both.total} examples can't be held out")
    rest, chosen = tfds.cut(both.total, validation)
    return StreamedDataset(
        name=base.name,
        train=stored.subset(both, rest),
        validation=stored.subset(both, chosen),
        test=held_out,
        mean=IMAGENET.mean,
        std=IMAGENET.std,
        classes=both.classes,
    )


def open_folder(folder: str | PathLike[str]) -> Examples:
    """The photographs of a folder, by class and name; the classes are numbered by their names.

    Hidden files, and files of other endings than `SUFFIXES`, are no examples.

    Raises:
      DataError: the folder is missing or has no class, or a class has no photograph.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("dog", "cat"):
    ...         Path(folder, name).mkdir()
    ...         Path(folder, name, "1.jpg").touch()
    ...     found = open_folder(folder)
    ...     second = found.read(1)
    >>> found.total, second.label, second.name
    (2, 1, 'dog/1.jpg')
    """
    base = Path(folder)
    paths, labels, parts = [], [], []
    names = _classes(base)
    for label, name in enumerate(names):
        files = _photographs(base / name)
        if not files:
            raise DataError(
                f"{base / name} holds no {', '.join(SUFFIXES)} file: add some, or"
                " delete that folder"
            )
        paths += [os.path.join(name, file) for file, _ in files]
        labels += [label] * len(files)
        parts += [f"{name}/{file}:{size}" for file, size in files]
    return Examples(
        name=str(base),
        total=len(paths),
        classes=len(names),
        read=partial(_read, str(base), tuple(paths), tuple(labels)),
        fingerprint=stored.digest(parts),
    )


def _classes(base: Path) -> list[str]:
    try:
        with os.scandir(base) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"{base} can't be read ({reason(error)})") from error
    if not names:
        raise DataError(f"{base} holds no folder: it needs one for each class")
    return names


def _photographs(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes in bytes, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, entry.stat().st_size)
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
        )


def _read(base: str, paths: tuple[str, ...], labels: tuple[int, ...], index: int) -> Encoded:
    try:
        image = Path(base, paths[index]).read_bytes()
    except OSError as error:
        raise ImageError(f"{paths[index]}: {reason(error)}") from error
    return Encoded(image, labels[index], paths[index])
