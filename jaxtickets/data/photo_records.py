"""Photographs in the array_record files that TFDS prepares, read without TensorFlow."""

from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from jaxtickets.data import examples as stored
from jaxtickets.data import folder as folders
from jaxtickets.data import tfds
from jaxtickets.data.errors import DataError, reason
from jaxtickets.data.examples import Encoded, Examples, StreamedDataset
from jaxtickets.data.sources import STREAMED, Source


def load(name: str, data_dir: str | PathLike[str] | None = None) -> StreamedDataset:
    """A set of `sources.STREAMED`, in TFDS's fixed order.

    Args:
      name: of the set.
      data_dir: the folder of prepared TFDS data; None for TFDS's own folder.

    Raises:
      DataError: the name is unknown, or the set is not prepared, or a file of it is missing or
        damaged.

    >>> load("imagenet2012", data_dir="nowhere")
    Traceback (most recent call last):
    jaxtickets.data.errors.DataError: --data_dir=nowhere is missing: run with --prepare
    (needs TensorFlow: pip install '.[prepare]' in the checkout of jaxtickets), or
    pass --data_dir=FOLDER of a prepared TFDS folder, or use --dataset=mnist5k
    """
    if name not in STREAMED:
        raise DataError(f"unknown photographs {name!r}: use one of {', '.join(STREAMED)}")
    source = STREAMED[name]
    folder = tfds.prepared_folder(source, data_dir, prepare=False)
    both = _open_split(source, folder, "train")
    rest, chosen = tfds.cut(both.total, source.validation)
    return StreamedDataset(
        name=name,
        train=stored.subset(both, rest),
        validation=stored.subset(both, chosen),
        test=_open_split(source, folder, source.test_split),
        mean=source.mean,
        std=source.std,
        classes=source.classes,
    )


def _open_split(source: Source, folder: Path, split: str) -> Examples:
    """One split of a prepared folder.

    array_record checks the hash of a record when it is read, so that a changed byte is detected.

    Raises:
      DataError: a file of the split is missing, is damaged or has another number of records.
    """
    import tensorflow_datasets
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    try:
        builder = tensorflow_datasets.builder_from_directory(folder)
        paths = [Path(path) for path in builder.info.splits[split].filepaths]
        lengths = builder.info.splits[split].shard_lengths
    except Exception as error:  # TFDS has many
        raise folders.damaged(folder, error) from error
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is missing: it is one of the {len(paths)} files of {split}")
    try:
        found = [len(ArrayRecordDataSource([str(path)])) for path in paths]
        decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
        records = builder.as_data_source(split=split, decoders=decoders)
    except Exception as error:
        raise folders.damaged(folder, error) from error
    for path, length, wanted in zip(paths, found, lengths, strict=True):
        if length != wanted:
            raise DataError(f"{path} is damaged: it holds {length} records, not {wanted}")
    parts = [f"{path.name}:{path.stat().st_size}" for path in paths]
    return Examples(
        name=f"{source.name}/{split}",
        total=len(records),
        classes=source.classes,
        read=partial(_read, records, str(folder)),
        fingerprint=stored.digest(parts),
    )


def _read(records: Any, folder: str, index: int) -> Encoded:
    try:
        record = records[index]
    except MemoryError:
        raise
    except Exception as error:  # a changed byte: the file is damaged, not one image of it
        raise DataError(
            f"{folder} is damaged (record {index}: {reason(error)}): restore its files"
        ) from error
    return Encoded(record["image"], int(record["label"]))
