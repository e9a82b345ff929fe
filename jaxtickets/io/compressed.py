"""A compressed ticket: one small file that is read without the original net, data or template.

    save_compressed("net.jxt", net, ticket, provenance, sharing)
    net, ticket, provenance = load_compressed("net.jxt")

This is the last stage of Deep Compression (Han, Mao and Dally, 2016). All of it is lossless: what
is pruned, shared or rounded is decided before, see `compress.weight_sharing`, and the parameters
that are read are the ones that were written, to the bit. So are their logits. The codes are
choices: `positions="relative"` with `symbols="huffman"` is the paper's; the defaults, learned masks
and a range coder, give the shortest files.

    the magic word, the version             4 bytes
    the header's length, the header         JSON, deflated: net, provenance, coders, leaves
    of each leaf: its flags, five sections  each with its length before it, see `leaf_coding`
    the CRC-32 of all before                4 bytes
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets import masks, nets
from jaxtickets.compress import leaf_coding
from jaxtickets.compress.entropy_coding import SYMBOL_CODERS
from jaxtickets.compress.leaf_coding import Coders, Sections, length, read_length
from jaxtickets.compress.position_coding import POSITION_CODERS
from jaxtickets.compress.weight_sharing import Sharing
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, finite_or_not, write_atomically
from jaxtickets.io.nested_dicts import flat, nested
from jaxtickets.types import PyTree, Ticket

MAGIC, VERSION, CHECKSUM = b"JXT", 1, 4
COMMON = (
    b'"stats":[["batch_stats/bn1/mean",[64],"float32"],["bn1/var",[64],"float32"]],"conv":"auto",'
    b'"batch_norm":false,"dropout":0.0,"norm1/bias","norm1/scale","dataset":"mnist5k","method":"'
    b'magnitude","name":"lenet5","use_bias":false,{"net":{"classes":10,"initializer":'
    b'"kaiming_normal","name":"lenet300_100","use_bias":true,"widths":[300,100]},"params":'
    b'[["conv1/bias",[20],"float32"],["conv1/kernel",[5,5,1,20],"float32"],["fc1/bias",[300],'
    b'"float32"],["fc1/kernel",[784,300],"float32"],["fc2/bias",[100],"float32"],["fc2/kernel",'
    b'[300,100],"float32"],["out/bias",[10],"float32"],["out/kernel",[100,10],"float32"]],'
    b'"positions":"learned","provenance":{"dataset":"mnist","density":0.0,"seed":0},'
    b'"rewind_step":0,"stats":[],"symbols":"range"}'
)
"""What many headers have in common: the dictionary of their compression, and so part of version 1
of the format."""


class Sizes(NamedTuple):
    """The bytes of a file's parts.

    Attributes:
      header: the magic word, the header, lengths, flags and the checksum.
      position_tables, positions: where the kept weights are.
      codebooks: shared values and scales.
      value_tables, values: which of the shared values each kept weight has.
      unshared: the numbers of leaves without shared values.
      total: the file's size, which is the sum of the others.
    """

    header: int
    position_tables: int
    positions: int
    codebooks: int
    value_tables: int
    values: int
    unshared: int
    total: int


class _Contents(NamedTuple):
    """What a file says before anything is decoded.

    Attributes:
      header: see `save_compressed`.
      flags, sections: of each leaf, first of the parameters, then of the statistics.
    """

    header: dict[str, Any]
    flags: tuple[int, ...]
    sections: tuple[Sections, ...]


def save_compressed(
    path: str | os.PathLike[str],
    net: nn.Module | None,
    ticket: Ticket,
    provenance: Mapping[str, Any],
    sharing: Sharing | None = None,
    positions: str = "learned",
    symbols: str = "range",
    index_bits: int | None = None,
) -> Path:
    """Writes a ticket into one file; replaces an existing one.

    Args:
      path: the file.
      net: a net of the registry; None for readers that have the net.
      ticket: unbatched, its trees nested dicts. Pruned weights are read as zeros.
      provenance: what the arrays do not say, in the types of JSON. Its bytes count.
      sharing: path -> a shared leaf, which is written in the place of the ticket's.
      positions: one of `position_coding.POSITION_CODERS`.
      symbols: one of `entropy_coding.SYMBOL_CODERS`.
      index_bits: the bits of a relative index; None for 8 in convolutions and 5 elsewhere.

    Returns:
      The file.

    Raises:
      ValueError: a kept number is not finite, the mask or a shared leaf does not match the
        parameters, the net is not in the registry, a coder is unknown, or the trees are not nested
        dicts with string keys that have no slash.
      OSError: it cannot be written; an existing file stays.

    >>> import tempfile
    >>> params = {"kernel": np.array([[0.5, 2.0]], "float32")}
    >>> ticket = Ticket(params, {}, {"kernel": np.array([[False, True]])}, rewind_step=np.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_compressed(Path(folder, "ticket.jxt"), None, ticket, {"seed": 3})
    ...     net, again, provenance = load_compressed(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist(), provenance
    ([[0.0, 2.0]], [[False, True]], {'seed': 3})
    """
    masks.check_mask(ticket.mask, ticket.params)
    header = {
        "net": None if net is None else nets.to_json(net),
        "params": _described(ticket.params, "parameters"),
        "positions": positions,
        "provenance": provenance,
        "rewind_step": int(ticket.rewind_step),
        "stats": _described(ticket.stats, "statistics"),
        "symbols": symbols,
    }
    coders = _coders(positions, symbols)._replace(index_bits=index_bits)
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=COMMON)
    small = deflate.compress(canonical(header).encode()) + deflate.flush()
    parts = [MAGIC, bytes([VERSION]), length(len(small)), small]
    for flags, sections in _encoded(ticket, sharing or {}, coders):
        parts.append(bytes([flags]))
        parts += [length(len(section)) + section for section in sections]
    data = b"".join(parts)
    write_atomically(Path(path), data + _checksum(data))
    return Path(path)


def load_compressed(
    path: str | os.PathLike[str],
) -> tuple[nn.Module | None, Ticket, dict[str, Any]]:
    """The net, None if the file has none; the ticket, on the default device; and the provenance.

    Raises:
      UserError: there is no file, it is damaged, or it is not one that this version can read.

    >>> import tempfile
    >>> params = {"kernel": np.array([[0.5, 2.0]], "float32")}
    >>> ticket = Ticket(params, {}, {"kernel": np.array([[False, True]])}, rewind_step=np.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_compressed(Path(folder, "ticket.jxt"), None, ticket, {"seed": 3})
    ...     net, again, provenance = load_compressed(path)
    >>> again.params["kernel"].tolist(), again.mask["kernel"].tolist(), provenance
    ([[0.0, 2.0]], [[False, True]], {'seed': 3})
    """
    contents = _read(Path(path))
    try:
        return _decoded(contents)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"the compressed ticket {path} is damaged: {error}") from error


def sizes(path: str | os.PathLike[str]) -> Sizes:
    """What the bytes of a file are for; raises UserError as `load_compressed` does.

    >>> import tempfile
    >>> params = {"kernel": np.array([[0.5, 2.0]], "float32")}
    >>> ticket = Ticket(params, {}, {"kernel": np.array([[False, True]])}, rewind_step=np.int32(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_compressed(Path(folder, "ticket.jxt"), None, ticket, {"seed": 3})
    ...     found, size = sizes(path), path.stat().st_size
    >>> found.total == size == sum(found) - found.total
    True
    """
    path = Path(path)
    contents = _read(path)
    total, found = path.stat().st_size, dict.fromkeys(Sizes._fields[1:-1], 0)
    for flags, leaf in zip(contents.flags, contents.sections, strict=True):
        found["position_tables"] += len(leaf.position_table)
        found["positions"] += len(leaf.positions)
        found["codebooks"] += len(leaf.codebook)
        found["value_tables"] += len(leaf.value_table)
        found["values" if flags & leaf_coding.SHARED else "unshared"] += len(leaf.values)
    return Sizes(header=total - sum(found.values()), total=total, **found)


def compression_factor(path: str | os.PathLike[str], parameters: int) -> float:
    """`4 parameters / size`: how many times smaller the file is than a dense net in float32.

    Args:
      path: the file.
      parameters: the number of the dense net's parameters, with biases and batch norms.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "ticket.jxt")
    ...     write_atomically(path, bytes(100))
    ...     factor = compression_factor(path, parameters=1000)
    >>> factor
    40.0
    """
    return 4 * parameters / Path(path).stat().st_size


# --- leaves --------------------------------------------------------------------------------------


def _encoded(ticket: Ticket, sharing: Sharing, coders: Coders) -> list[tuple[int, Sections]]:
    """Flags and sections of all leaves, in the file's order."""
    names = masks.paths(ticket.params)
    for name in sharing:
        if name not in names:
            raise ValueError(f"no leaf '{name}' to share; there are {', '.join(names)}")
    stats = ticket.stats
    trees = (ticket.params, ticket.mask, names), (stats, masks.ones(stats), masks.paths(stats))
    found: list[tuple[int, Sections]] = []
    earlier: list[np.ndarray] = []
    for number, (tree, mask, paths) in enumerate(trees):
        leaves = zip(paths, jax.tree.leaves(tree), jax.tree.leaves(mask), strict=True)
        for name, leaf, kept in leaves:
            shared = None if number else sharing.get(name)
            kept = np.asarray(kept)
            one = leaf_coding.encode(name, np.asarray(leaf), kept, shared, earlier, coders)
            found.append(one)
            earlier.append(kept)
    return found


def _decoded(contents: _Contents) -> tuple[nn.Module | None, Ticket, dict[str, Any]]:
    header = contents.header
    coders = _coders(header["positions"], header["symbols"])
    described = [*header["params"], *header["stats"]]
    leaves: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    each = zip(described, contents.flags, contents.sections, strict=True)
    for (_, shape, dtype), flags, sections in each:
        kind = jnp.dtype(dtype)
        leaf, mask = leaf_coding.decode(flags, sections, tuple(shape), kind, kept, coders)
        leaves.append(leaf)
        kept.append(mask)
    paths, count = [path for path, _, _ in described], len(header["params"])
    arrays, bits = ([jnp.asarray(array) for array in some] for some in (leaves, kept))
    ticket = Ticket(
        params=nested(dict(zip(paths[:count], arrays[:count], strict=True))),
        stats=nested(dict(zip(paths[count:], arrays[count:], strict=True))),
        mask=nested(dict(zip(paths[:count], bits[:count], strict=True))),
        rewind_step=jnp.int32(header["rewind_step"]),
    )
    net = None if header["net"] is None else nets.from_json(header["net"])
    return net, ticket, finite_or_not(header["provenance"])


def _coders(positions: str, symbols: str) -> Coders:
    if positions not in POSITION_CODERS:
        known = ", ".join(POSITION_CODERS)
        raise ValueError(f"unknown coder of positions '{positions}': one of {known}")
    if symbols not in SYMBOL_CODERS:
        known = ", ".join(SYMBOL_CODERS)
        raise ValueError(f"unknown coder of symbols '{symbols}': one of {known}")
    return Coders(POSITION_CODERS[positions], SYMBOL_CODERS[symbols])


def _described(tree: PyTree, name: str) -> list[list[Any]]:
    """`[path, shape, dtype]` of each leaf; raises ValueError unless they are in nested dicts."""
    each = zip(flat(tree, name), jax.tree.leaves(tree), strict=True)
    return [[path, list(jnp.shape(leaf)), str(jnp.result_type(leaf))] for path, leaf in each]


# --- files ---------------------------------------------------------------------------------------


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM, "little")


def _read(path: Path) -> _Contents:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    start = len(MAGIC) + 1
    if len(data) < start or not data.startswith(MAGIC):
        raise UserError(f"{path} is not a compressed ticket")
    if data[start - 1] != VERSION:
        raise UserError(f"{path} has version {data[start - 1]}, not {VERSION}, of the format")
    if _checksum(data[:-CHECKSUM]) != data[-CHECKSUM:]:
        raise UserError(f"the compressed ticket {path} is damaged: its checksum differs")
    try:
        return _contents(data[start:-CHECKSUM])
    except (ValueError, KeyError, TypeError, IndexError, zlib.error) as error:
        raise UserError(f"the compressed ticket {path} is damaged: {error}") from error


def _contents(data: bytes) -> _Contents:
    small, at = _section(data, 0)
    text = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=COMMON).decompress(small)
    header = json.loads(text)
    flags, sections = [], []
    for _ in (*header["params"], *header["stats"]):
        flags.append(data[at])
        at += 1
        leaf = []
        for _ in Sections._fields:
            section, at = _section(data, at)
            leaf.append(section)
        sections.append(Sections(*leaf))
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left over")
    return _Contents(header, tuple(flags), tuple(sections))


def _section(data: bytes, at: int) -> tuple[bytes, int]:
    """A section and the place after it."""
    size, start = read_length(data, at)
    if start + size > len(data):
        raise ValueError("a section is cut off")
    return data[start : start + size], start + size
