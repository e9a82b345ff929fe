"""Decodes the records of a prepared TFDS folder, without TensorFlow."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.data import folder as folders
from jaxtickets.data.sources import Source
from jaxtickets.types import Split


def read(source: Source, folder: Path) -> tuple[Split, Split]:
    """TFDS's train and test splits, in TFDS's own fixed order.

    array_record checks the hashes of the records, so a changed byte is detected.

    Raises:
      DataError: the folder is damaged: a file is missing, truncated or changed, the number of
        records differs from `dataset_info.json`, or an image or a label is invalid.
    """
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder_from_directory(folder)
        return _split(source, builder, "train"), _split(source, builder, source.test_split)
    except MemoryError:
        raise
    except Exception as error:  # TFDS, array_record, protobuf and Pillow share no error type
        raise folders.damaged(folder, error) from error


def _split(source: Source, builder: Any, name: str) -> Split:
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets import decode

    # Decoding below takes two thirds of TFDS's time, and spares its warning about OpenCV.
    decoders = {"image": decode.SkipDecoding()}
    records = builder.as_data_source(split=name, decoders=decoders)
    stored = len(ArrayRecordDataSource([str(p) for p in builder.info.splits[name].filepaths]))
    if stored != len(records):
        raise ValueError(f"{name} holds {stored} records, not {len(records)}")
    examples = records.__getitems__(range(len(records)))
    labels = np.array([example["label"] for example in examples], np.int32)
    if labels.min() < 0 or labels.max() >= source.classes:
        raise ValueError(f"{name} holds a label outside 0 to {source.classes - 1}")
    images = np.empty((len(examples), *source.shape), np.uint8)
    for image, example in zip(images, examples, strict=True):
        image[...] = _decode(example["image"], source.shape)
    return Split(images, labels)


def _decode(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8`[h, w, c]`; raises ValueError if the image has another shape or depth."""
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(encoded)))
    image = image[..., None] if image.ndim == 2 else image
    if image.shape != shape or image.dtype != np.uint8:
        raise ValueError(f"an image is {image.dtype}{list(image.shape)}, not uint8{list(shape)}")
    return image
