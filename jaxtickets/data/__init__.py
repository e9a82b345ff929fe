"""Data sets by name, as arrays on the host: two bundled sets, and those prepared by TFDS.

`augment` and `batches` process them on the device.
"""

from collections.abc import Callable
from os import PathLike

from jaxtickets.data import digits, mnist5k, tfds
from jaxtickets.data.errors import DataError
from jaxtickets.data.sources import SOURCES, Source
from jaxtickets.data.variants import VARIANTS, variant_of
from jaxtickets.types import Dataset

__all__ = ["NAMES", "VARIANTS", "DataError", "classes", "load", "shape"]

_BUNDLED: dict[str, Callable[[Source, str | PathLike[str] | None, bool], Dataset]] = {
    "digits": digits.load,
    "mnist5k": mnist5k.load,
}
"""The loaders of sets that TFDS does not prepare."""

NAMES = tuple(SOURCES)


def load(name: str, data_dir: str | PathLike[str] | None = None, prepare: bool = False) -> Dataset:
    """The data set of a name, always with the same examples in the same order.

    Args:
      name: one of `NAMES`; with `:VARIANT` after it, one of its `VARIANTS`, such as
        `mnist5k:inverted`.
      data_dir: the folder of prepared TFDS data; None for TFDS's own folder. `mnist5k` and `digits`
        are parts of packages and ignore this argument and `prepare`.
      prepare: whether to download and prepare a set that is not prepared yet; needs TensorFlow.

    Raises:
      DataError: the name is unknown, or the set is missing, not prepared or damaged.

    >>> digits = load("digits")
    >>> digits.train.images.shape, len(digits.validation.labels), digits.classes
    ((1097, 8, 8, 1), 300, 10)
    >>> load("digits:first_classes").classes
    5
    """
    source, variant = _source(name)
    whole = _BUNDLED.get(source.name, tfds.load)(source, data_dir, prepare)
    return variant_of(whole, variant) if variant else whole


def shape(name: str) -> tuple[int, int, int]:
    """`(h, w, c)` of an image of `name`, without loading; raises DataError if unknown.

    >>> shape("mnist5k"), shape("cifar10")
    ((28, 28, 1), (32, 32, 3))
    """
    return _source(name)[0].shape


def classes(name: str) -> int:
    """The number of classes of `name`, without loading; raises DataError if unknown.

    >>> classes("mnist5k"), classes("mnist5k:first_classes")
    (10, 5)
    """
    source, variant = _source(name)
    return VARIANTS[variant].classes(source.classes) if variant else source.classes


def _source(name: str) -> tuple[Source, str]:
    """The facts about a data set, and the name of the variant; empty if there is none."""
    whole, colon, variant = name.partition(":")
    if whole not in SOURCES:
        raise DataError(f"unknown data set {whole!r}: use one of {', '.join(NAMES)}")
    if colon and variant not in VARIANTS:
        raise DataError(f"unknown variant {variant!r} of {whole}: use one of {', '.join(VARIANTS)}")
    return SOURCES[whole], variant
