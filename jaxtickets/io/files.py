"""Strict JSON that every parser reads, and files that are written completely or not at all."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file through a temporary file beside it, so that no reader sees a partial file.

    Text is written in UTF-8, bytes as they are.

    Raises:
      OSError: it cannot be written; the error names `path`, and no temporary file remains.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder, "spec.json"), "{}")
    ...     found = os.listdir(folder), Path(folder, "spec.json").read_text()
    >>> found
    (['spec.json'], '{}')
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with naming(path):
            new.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds `path` to the errors of writing it: those of a full disk name no file themselves.

    >>> with naming(Path("metrics.jsonl")):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'metrics.jsonl'
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


ROOM = 100_000
"""The approximate bytes of an array's files beside its numbers."""


def reserve(folder: Path, size: int) -> None:
    """Raises OSError unless the disk has room for `size` more bytes in `folder`, plus `ROOM`.

    Without this check, the array writer would fail half-way and leave threads that fail later.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     reserve(Path(folder), size=1000)
    ...     left = os.listdir(folder)
    >>> left
    []
    """
    probe = folder / f".{os.getpid()}.room"
    try:
        with naming(folder), probe.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size + ROOM)
            elif shutil.disk_usage(folder).free < size + ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        probe.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Removes a folder and its contents, or a file; does nothing if it cannot.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> Path(folder, "file").touch()
    >>> remove(folder)
    >>> folder.exists()
    False
    """
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def plain(value: Any) -> Any:
    """`value` in the types of JSON.

    Dataclasses and mappings become dicts, tuples become lists, arrays and numpy scalars become
    lists and numbers, and the floats that JSON lacks become the strings `nan`, `inf` and `-inf`.

    Raises:
      TypeError: it contains a value of another type.

    >>> plain({"density": np.float32(0.5), "loss": math.nan, "shape": (2, 3)})
    {'density': 0.5, 'loss': 'nan', 'shape': [2, 3]}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    raise TypeError(f"{type(value).__name__} can't be written as JSON: {value!r}")


def finite_or_not(value: Any) -> Any:
    """Reverses what `plain` does to floats that JSON lacks.

    >>> finite_or_not({"loss": "nan", "steps": [1, "inf"]})
    {'loss': nan, 'steps': [1, inf]}
    """
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: finite_or_not(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite_or_not(item) for item in value]
    return value


def canonical(value: Any) -> str:
    """The canonical JSON text of a value: keys sorted, no blanks.

    >>> canonical({"seed": 1, "density": 0.5})
    '{"density":0.5,"seed":1}'
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, in 64 hexadecimal digits.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}), len(digest({}))
    (True, 64)
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def pretty(value: Any) -> str:
    """JSON for human readers: one item on a line, in the given order.

    >>> print(pretty({"seed": 1, "density": 0.5}), end="")
    {
      "seed": 1,
      "density": 0.5
    }
    """
    return json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
