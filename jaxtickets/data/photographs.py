"""Sets of photographs by name, and what a net sees of them: square crops of one size."""

from functools import partial
from os import PathLike

import numpy as np

from jaxtickets.data import crops, examples, photo_folder, photo_records, stream
from jaxtickets.data.errors import DataError
from jaxtickets.data.examples import Examples, StreamedDataset
from jaxtickets.data.sources import IMAGENET, SPLIT_SEED, STREAMED
from jaxtickets.data.stream import Transform
from jaxtickets.types import Split

FOLDER = "folder"
"""The name of any set in two folders, `train` and `val`, with a folder for each class."""
NAMES = (*STREAMED, FOLDER)


def load(name: str, data_dir: str | PathLike[str] | None = None) -> StreamedDataset:
    """The photographs of a name.

    Args:
      name: one of `NAMES`.
      data_dir: for `folder` that folder, which must be given; for the others the folder of prepared
        TFDS data, or None for TFDS's own folder.

    Raises:
      DataError: see `photo_folder.load` and `photo_records.load`.

    >>> load("folder")
    Traceback (most recent call last):
    jaxtickets.data.errors.DataError: --dataset=folder: name the folder of train and val by
    --data_dir=FOLDER
    """
    if name != FOLDER:
        return photo_records.load(name, data_dir)
    if data_dir is None:
        raise DataError("--dataset=folder: name the folder of train and val by --data_dir=FOLDER")
    return photo_folder.load(data_dir)


def usual_size(name: str) -> int:
    """The pixels of a side to which the photographs of `name` are usually cropped.

    >>> usual_size("imagenet2012"), usual_size("imagenet_sample")
    (224, 128)
    """
    return STREAMED.get(name, IMAGENET).shape[0]


def random(size: int) -> Transform:
    """A random part, mirrored in half of the cases; decoded at a lower resolution if possible.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(file, "JPEG")
    >>> random(8)(file.getvalue(), np.full(crops.DRAWS, 0.5)).shape
    (8, 8, 3)
    """
    return partial(crops.random_crop, size=size, draft=True)


def centre(size: int) -> Transform:
    """The middle of the photograph, whose shorter side has 8/7 of `size`: 256 for 224.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(file, "JPEG")
    >>> centre(8)(file.getvalue(), np.full(crops.DRAWS, 0.5)).shape
    (8, 8, 3)
    """
    return partial(crops.centre_crop, size=size, shorter=round(size * 8 / 7))


def some(found: Examples, count: int) -> Examples:
    """`count` of the examples, always the same ones; all of them, in their order, if 0.

    >>> read = lambda i: examples.Encoded(b"", 0, str(i))
    >>> found = some(Examples("many", 100, 1, read, fingerprint=""), 3)
    >>> found.total, len({found.read(i).name for i in range(3)})
    (3, 3)
    """
    if not count:
        return found
    chosen = np.random.default_rng(SPLIT_SEED).permutation(found.total)[:count]
    return examples.subset(found, chosen)


def decoded(
    found: Examples, size: int, count: int, threads: int = 2, skip_corrupt: bool = False
) -> Split:
    """`centre` crops of `some` examples, in memory: images uint8`[n, size, size, 3]`.

    Args:
      found: the examples.
      size: of an image.
      count: how many, at most.
      threads: how many batches are decoded at a time.
      skip_corrupt: whether corrupt images are left out, or raise.

    Raises:
      DataError: an image or a label is invalid, see `stream.batch_at`.

    >>> import io
    >>> from PIL import Image
    >>> def read(i):
    ...     file = io.BytesIO()
    ...     Image.new("RGB", (40, 30), ["red", "white"][i]).save(file, "PNG")
    ...     return examples.Encoded(file.getvalue(), label=i)
    >>> split = decoded(Examples("two", 2, 2, read, fingerprint=""), size=8, count=2, threads=0)
    >>> split.images.shape, [int(split.images[i].min()) for i in np.argsort(split.labels)]
    ((2, 8, 8, 3), [0, 255])
    """
    chosen = some(found, min(count, found.total))
    made = stream.evaluation(chosen, min(16, chosen.total), centre(size), skip_corrupt)
    read = list(stream.batches(made, 0, made.steps_per_epoch, threads))
    return Split(
        images=np.concatenate([batch.images[batch.valid] for batch in read]),
        labels=np.concatenate([batch.labels[batch.valid] for batch in read]),
    )
