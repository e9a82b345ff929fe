"""Examples that stay on disk and are read one by one, by their number."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxtickets.data.errors import DataError


class Encoded(NamedTuple):
    """One example as it is stored.

    Attributes:
      image: the bytes of a JPEG file.
      label: from 0 to the number of classes, exclusive.
      name: that of its file, for messages; empty if it has no file of its own.
    """

    image: bytes
    label: int
    name: str = ""


class Examples(NamedTuple):
    """A set of examples that are read by number.

    Attributes:
      name: for messages.
      total: how many there are.
      classes: the number of classes.
      read: `read(i)` is example `i`; pure, and safe to call from several threads and processes.
      fingerprint: a digest of the names and sizes of the files: equal for the same examples in the
        same order, wherever they are stored.
    """

    name: str
    total: int
    classes: int
    read: Callable[[int], Encoded]
    fingerprint: str


class StreamedDataset(NamedTuple):
    """A data set that is read a batch at a time: a `types.Dataset` of `Examples`.

    Attributes:
      name: its name.
      train, validation, test: disjoint sets; the validation set is taken from the training set.
      mean, std: float`[c]` tuples, the statistics of each channel's pixels scaled to [0, 1].
      classes: the number of classes.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int


def digest(parts: Iterable[object]) -> str:
    """64 bits of a BLAKE2 digest of the parts' texts, in hexadecimal.

    >>> digest(["a", 1]) == digest(["a", 1]), digest(["ab"]) == digest(["a", "b"])
    (True, False)
    """
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(f"{part}\0".encode())
    return found.hexdigest()


def subset(examples: Examples, indices: np.ndarray) -> Examples:
    """The examples with the numbers int`[n]`, in that order.

    Raises:
      DataError: there is no example of such a number, or none is chosen.

    >>> read = lambda i: Encoded(image=b"", label=i, name="abc"[i])
    >>> letters = Examples("letters", total=3, classes=26, read=read, fingerprint="")
    >>> chosen = subset(letters, np.array([2, 0]))
    >>> [chosen.read(i).name for i in range(chosen.total)]
    ['c', 'a']
    """
    if not len(indices) or indices.min() < 0 or indices.max() >= examples.total:
        raise DataError(f"{examples.name}: choose some of the {examples.total} examples")
    return examples._replace(
        total=len(indices),
        read=partial(_read_chosen, examples.read, indices),
        fingerprint=digest([examples.fingerprint, indices.astype("<i8").tobytes().hex()]),
    )


def _read_chosen(read: Callable[[int], Encoded], indices: np.ndarray, index: int) -> Encoded:
    return read(int(indices[index]))


def check_same(name: str, fingerprints: Sequence[str]) -> None:
    """Raises DataError unless all processes have the same examples.

    Args:
      name: of the examples.
      fingerprints: that of each process.

    >>> check_same("photographs", ["a1", "a1", "b2"])
    Traceback (most recent call last):
    jaxtickets.data.errors.DataError: photographs: process 2 has other examples than process 0:
    give all processes the same files
    """
    others = [str(k) for k, one in enumerate(fingerprints) if one != fingerprints[0]]
    if others:
        raise DataError(
            f"{name}: process {', '.join(others)} has other examples than process 0: give all"
            " processes the same files"
        )
