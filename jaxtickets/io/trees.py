"""A PyTree of arrays in a folder, with checksums: the format of checkpoints and tickets.

    FOLDER/arrays/         Orbax; leaves numbered in the order of `jax.tree.leaves`
    FOLDER/manifest.json   `info`; paths, shapes and dtypes of the leaves; SHA-256 of every file;
                           of the manifest itself. Written last

Orbax loads a flipped byte without an error, which is why there are checksums. It accepts neither
empty containers, nor typed keys, nor arrays without elements, which is why leaves are numbered.
Bools, such as masks, are written eight to a byte; older folders, with one to a byte, are read too.

Several processes write and read together, in the first process's folder: Orbax counts its calls in
all processes and waits for all of them.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets.io import files, processes
from jaxtickets.io.files import digest, pretty, write_atomically
from jaxtickets.types import Array, PyTree

MANIFEST = "manifest.json"


class DamagedError(Exception):
    """The contents of the folder differ from what was written, or do not fit the template."""


def write(folder: Path, tree: PyTree, info: Mapping[str, Any]) -> None:
    """Writes `tree` and `info` into a folder that does not exist yet.

    Args:
      folder: created, with its parents.
      tree: PyTree of arrays, typed keys and Python numbers.
      info: further contents of the manifest, in the types of JSON.

    Raises:
      FileExistsError: the folder exists.
      OSError: it cannot be written, for example because the disk is full; nothing of it remains.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "state"), {"w": np.array([1.0, 2.0]), "step": 7}, info={})
    ...     tree = read(Path(folder, "state"), template={"w": np.zeros(2), "step": 0})
    >>> tree["w"].tolist(), tree["step"]
    ([1.0, 2.0], 7)
    """
    folder.mkdir(parents=True)
    try:
        _write(folder, tree, info)
    except BaseException:
        files.remove(folder)
        raise


def _write(folder: Path, tree: PyTree, info: Mapping[str, Any]) -> None:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {f"{i:04d}": _host(leaf) for i, (_, leaf) in enumerate(flat)}
    _save_arrays(folder / "arrays", {k: _packed(a) for k, a in arrays.items() if a.size})
    manifest = {
        "info": info,
        "leaves": [
            {"path": _name(path), **_kind(leaf)} | _raw(array)
            for (path, leaf), array in zip(flat, arrays.values(), strict=True)
        ],
        "files": {name: _checksum(folder / name) for name in _files(folder)},
    }
    write_atomically(folder / MANIFEST, pretty({**manifest, "sha256": digest(manifest)}))


def read(folder: Path, template: PyTree) -> PyTree:
    """The tree in `folder`, with the treedef and the leaf types of `template`.

    Raises:
      DamagedError: a checksum differs, a file is missing, or a leaf's path, shape or dtype differs
        from the template's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "state"), {"w": np.array([1.0, 2.0]), "step": 7}, info={})
    ...     tree = read(Path(folder, "state"), template={"w": np.zeros(2), "step": 0})
    >>> tree["w"].tolist(), tree["step"]
    ([1.0, 2.0], 7)
    """
    manifest = read_manifest(folder)
    flat, treedef = jax.tree_util.tree_flatten_with_path(template)
    saved = [(leaf["path"], leaf["dtype"], tuple(leaf["shape"])) for leaf in manifest["leaves"]]
    wanted = [
        (_name(path), kind["dtype"], tuple(kind["shape"]))
        for path, kind in ((path, _kind(leaf)) for path, leaf in flat)
    ]
    for have, want in zip(saved, wanted, strict=False):
        if have != want:
            raise DamagedError(f"it holds {_words(*have)} where {_words(*want)} belongs")
    if len(saved) != len(wanted):
        raise DamagedError(f"it holds {len(saved)} arrays where {len(wanted)} belong")
    arrays = read_arrays(folder, manifest)
    return jax.tree.unflatten(
        treedef,
        [
            _like(leaf, array, entry)
            for (_, leaf), array, entry in zip(flat, arrays, manifest["leaves"], strict=True)
        ],
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`; raises DamagedError if it has changed since it was written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "state"), {"w": np.array([1.0, 2.0])}, info={"seed": 3})
    ...     manifest = read_manifest(Path(folder, "state"))
    >>> manifest["info"], [(leaf["path"], leaf["shape"]) for leaf in manifest["leaves"]]
    ({'seed': 3}, [('w', [2])])
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = manifest.pop("sha256") == digest(manifest)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} can't be read") from error
    if not whole:
        raise DamagedError(f"{MANIFEST} has changed")
    return manifest


def read_arrays(folder: Path, manifest: Mapping[str, Any]) -> list[np.ndarray]:
    """The leaves as they were written; keys as their data.

    Raises:
      DamagedError: a file is missing or has changed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "state"), {"w": np.array([1.0, 2.0])}, info={})
    ...     arrays = read_arrays(Path(folder, "state"), read_manifest(Path(folder, "state")))
    >>> [array.tolist() for array in arrays]
    [[1.0, 2.0]]
    """
    for name, checksum in manifest["files"].items():
        if not (folder / name).is_file():
            raise DamagedError(f"{name} is missing")
        if _checksum(folder / name) != checksum:
            raise DamagedError(f"{name} has changed")
    empty = {
        f"{i:04d}": np.zeros(leaf["raw_shape"], jnp.dtype(leaf["raw_dtype"]))
        for i, leaf in enumerate(manifest["leaves"])
    }
    packed = {f"{i:04d}": leaf.get("packed", False) for i, leaf in enumerate(manifest["leaves"])}
    template = {k: _packed(a) if packed[k] else a for k, a in empty.items() if a.size}
    loaded = _load_arrays(folder / "arrays", template)
    whole = {k: unpack_bits(a, empty[k].shape) if packed[k] else a for k, a in loaded.items()}
    return list((empty | whole).values())


def is_complete(folder: Path) -> bool:
    """Whether the folder was written to the end.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "state"), {"step": 7}, info={})
    ...     written = is_complete(Path(folder, "state"))
    ...     invalidate(Path(folder, "state"))
    ...     left = is_complete(Path(folder, "state"))
    >>> written, left
    (True, False)
    """
    return (folder / MANIFEST).exists()


def invalidate(folder: Path) -> None:
    """Removes the manifest, so that the folder counts as incomplete.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "state"), {"step": 7}, info={})
    ...     written = is_complete(Path(folder, "state"))
    ...     invalidate(Path(folder, "state"))
    ...     left = is_complete(Path(folder, "state"))
    >>> written, left
    (True, False)
    """
    with contextlib.suppress(NotADirectoryError):  # a file in the folder's place
        (folder / MANIFEST).unlink(missing_ok=True)


def pack_bits(bools: np.ndarray) -> np.ndarray:
    """uint8`[ceil(size / 8)]`: the bools in flattened order, the first in a byte's highest bit.

    >>> pack_bits(np.array([[True, False], [True, True]])).tolist()  # 1011 0000
    [176]
    """
    return np.packbits(bools.ravel())


def unpack_bits(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """bool`[*shape]`: the inverse of `pack_bits`.

    >>> unpack_bits(np.array([0b10110000], "uint8"), (2, 2)).tolist()
    [[True, False], [True, True]]
    """
    return np.unpackbits(packed, count=math.prod(shape)).astype(bool).reshape(shape)


# --- leaves --------------------------------------------------------------------------------------


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _kind(leaf: Any) -> dict[str, Any]:
    """The shape and dtype in the manifest; a Python number has those that numpy gives it."""
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    kind: dict[str, Any] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if _is_key(leaf) and isinstance(leaf, jax.Array):
        kind["key"] = jax.random.key_impl(leaf)
    return kind


def _raw(array: np.ndarray) -> dict[str, Any]:
    raw = {"raw_shape": list(array.shape), "raw_dtype": str(array.dtype)}
    return raw | ({"packed": True} if array.dtype == bool else {})


def _packed(array: np.ndarray) -> np.ndarray:
    """The bits of bools, see `pack_bits`; other arrays stay."""
    return pack_bits(array) if array.dtype == bool else array


def _host(leaf: Any) -> np.ndarray:
    return np.asarray(jax.device_get(jax.random.key_data(leaf) if _is_key(leaf) else leaf))


def _like(leaf: Any, array: np.ndarray, entry: Mapping[str, Any]) -> Array:
    """`array` converted to the type of the template's `leaf`."""
    if isinstance(leaf, np.generic):
        return array[()]
    if isinstance(leaf, np.ndarray):
        return array
    if isinstance(leaf, bool | int | float):
        return type(leaf)(array.item())
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.array(array), impl=entry["key"])
    return jnp.array(array)


def _words(path: str, dtype: str, shape: tuple[int, ...]) -> str:
    return f"{path or 'a leaf'} {dtype}{list(shape)}"


# --- files ---------------------------------------------------------------------------------------


def _save_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    if arrays:
        from orbax.checkpoint import v1 as orbax

        files.reserve(folder.parent, sum(array.nbytes for array in arrays.values()))
        try:
            with _silent(logging.getLogger("absl")):  # Orbax's threads log tracebacks there
                orbax.save(_place(folder), arrays)
        except ValueError as error:  # the disk filled up after `reserve`
            code = _OS_ERROR.search(str(error))
            if not code:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error


_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
"""The part of Orbax's message that holds the operating system's error code."""


@contextlib.contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def _load_arrays(folder: Path, template: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not template:
        return {}
    from orbax.checkpoint import v1 as orbax

    return orbax.load(_place(folder), template)


def _place(folder: Path) -> str:
    """The first process's folder, in which all processes write and read together."""
    return processes.told(lambda: os.path.abspath(folder))


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
