"""The folder of a prepared TFDS set, and whether it looks intact; plain files, no TFDS import."""

import json
import os
import re
from os import PathLike
from pathlib import Path

from jaxtickets.data.errors import DataError, reason
from jaxtickets.data.sources import Source

HOW_TO_INSTALL = "pip install '.[prepare]' in the checkout of jaxtickets"
HOW_TO_PREPARE = f"run with --prepare (needs TensorFlow: {HOW_TO_INSTALL})"
HOW_ELSE = "pass --data_dir=FOLDER of a prepared TFDS folder, or use --dataset=mnist5k"
HOW_TO_GET = f"{HOW_TO_PREPARE}, or {HOW_ELSE}"


def root(data_dir: str | PathLike[str] | None) -> Path:
    """`data_dir`, or if that is None TFDS's own: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    >>> root("/data").as_posix()
    '/data'
    """
    own = os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))
    return Path(os.path.expanduser(own if data_dir is None else data_dir))


def find(source: Source, base: Path) -> Path | None:
    """The folder `base/name/version` of the newest version; None if there is none.

    >>> import tempfile
    >>> from jaxtickets.data.sources import MNIST
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for version in ("3.0.1", "3.0.10"):
    ...         Path(folder, "mnist", version).mkdir(parents=True)
    ...     newest = find(MNIST, Path(folder))
    >>> newest.name
    '3.0.10'
    """
    try:
        versions = [path for path in (base / source.name).iterdir() if _version(path)]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{base} can't be read ({reason(error)}): {HOW_TO_GET}") from error
    return max(versions, key=_version, default=None)


def check_folder(source: Source, folder: Path) -> None:
    """Raises DataError unless the set's description is intact and lists the expected records.

    A split that is not used here, such as ImageNet's unlabelled test set, may be there or not.

    >>> from jaxtickets.data.sources import MNIST
    >>> check_folder(MNIST, Path("nowhere"))
    Traceback (most recent call last):
    jaxtickets.data.errors.DataError: nowhere is damaged ([Errno 2] No such file or directory:
    'nowhere/dataset_info.json'): restore its files, or delete that folder and run with --prepare
    (needs TensorFlow: pip install '.[prepare]' in the checkout of jaxtickets)
    """
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        form = info.get("fileFormat", "tfrecord")
        counts = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, error) from error
    if form != "array_record":
        raise DataError(
            f"{folder} holds {form} files, not array_record: pass another --data_dir and"
            f" {HOW_TO_PREPARE}"
        )
    wanted = {"train": source.train + source.validation, source.test_split: source.test}
    if any(counts.get(name) != number for name, number in wanted.items()):
        raise damaged(folder, ValueError(f"it lists {counts} records, not {wanted}"))


def damaged(folder: Path, error: Exception) -> DataError:
    """The error for a damaged folder; `error` is the reason.

    >>> print(damaged(Path("mnist/3.0.1"), ValueError("no labels")))
    mnist/3.0.1 is damaged (no labels): restore its files, or delete that folder and
    run with --prepare (needs TensorFlow: pip install '.[prepare]' in the checkout of jaxtickets)
    """
    return DataError(
        f"{folder} is damaged ({reason(error)}): restore its files, or delete that folder and"
        f" {HOW_TO_PREPARE}"
    )


def _version(path: Path) -> tuple[int, ...]:
    """`(3, 0, 1)` for a folder `3.0.1`; `()` for others, such as TFDS's unfinished folders."""
    numbers = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", path.name)
    return tuple(map(int, numbers.groups())) if numbers and path.is_dir() else ()
