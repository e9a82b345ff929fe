"""Named arrays and strings in a safetensors file, with a checksum. Any safetensors reader opens it.

The format (github.com/huggingface/safetensors) has no checksum: readers load a flipped byte without
an error. So the metadata holds `sha256`, the SHA-256 of the canonical JSON (keys sorted, no blanks)
of the other metadata, followed by, for each array in the order of the names, the canonical JSON of
`[name, dtype, shape]` and the array's bytes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, write_atomically

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64",
}  # fmt: skip
"""The format's name of a dtype -> numpy's."""


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Path:
    """Writes arrays, metadata and checksum; returns the path. An existing file is replaced at once.

    Raises:
      ValueError: an array has another dtype than those of `DTYPES`.
      OSError: it cannot be written; an existing file stays.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write(Path(folder, "a.safetensors"), {"w": np.array([1, 2])}, {"seed": "3"})
    ...     arrays, metadata = read(path)
    >>> arrays["w"].tolist(), metadata
    ([1, 2], {'seed': '3'})
    """
    from safetensors.numpy import save

    plain = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.name not in DTYPES.values():
            raise ValueError(f"{name} is {array.dtype}: safetensors files hold no such numbers")
    named = {**metadata, "sha256": _checksum(plain, metadata)}
    write_atomically(path, save(plain, named))
    return path


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata, without the checksum.

    Raises:
      UserError: in one line: there is no such file, it is not a safetensors file, another program
        wrote it, or it has changed since it was written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write(Path(folder, "a.safetensors"), {"w": np.array([1, 2])}, {"seed": "3"})
    ...     arrays, metadata = read(path)
    >>> arrays["w"].tolist(), metadata
    ([1, 2], {'seed': '3'})
    """
    from safetensors import SafetensorError, deserialize

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    try:
        entries = deserialize(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        arrays = {
            name: np.frombuffer(entry["data"], jnp.dtype(DTYPES[entry["dtype"]])).reshape(
                entry["shape"]
            )
            for name, entry in entries
        }
    except (SafetensorError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no safetensors file, or is damaged: {reason}") from error
    if "sha256" not in metadata:
        raise UserError(f"{path} has no checksum: it was not written by jaxtickets")
    if metadata.pop("sha256") != _checksum(arrays, metadata):
        raise UserError(f"{path} is damaged: it has changed since it was written")
    return arrays, metadata


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    total = hashlib.sha256(canonical(metadata).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(canonical([name, array.dtype.name, array.shape]).encode())
        total.update(array.tobytes())
    return total.hexdigest()
