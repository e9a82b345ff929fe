"""A leaf's kept weights as bytes and back, to the bit: where they are, and what they are.

A leaf whose values are shared has a codebook and, for each kept weight, an assignment in a code of
symbols. Any other leaf has its numbers, or a codebook of its distinct values if that is shorter.
Numbers are stored in the narrowest type that holds them exactly, so that values which were rounded
to float16 before take two bytes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxtickets.compress.entropy_coding import Coded, SymbolCoder
from jaxtickets.compress.position_coding import PositionCoder
from jaxtickets.compress.weight_sharing import Shared, values

NARROW = ("<i1", "<f2", "<f4", "<f8")
"""The types that numbers may be stored in, narrowest first; else they keep the leaf's own."""
OWN, CONSECUTIVE = len(NARROW), len(NARROW) + 1
"""The forms of numbers after those of `NARROW`."""
MOST_VALUES = 256
"""The most distinct values of an unshared leaf for which a codebook is tried."""
PRUNED, SHARED, SCALED = 1, 2, 4
"""The flags of a leaf: its mask is stored; it has a codebook; it has a scale."""


class Coders(NamedTuple):
    """How leaves are coded.

    Attributes:
      positions: the code of masks.
      symbols: the code of assignments, and of relative indices.
      index_bits: the bits of a relative index; None for the paper's.
    """

    positions: PositionCoder
    symbols: SymbolCoder
    index_bits: int | None = None


class Sections(NamedTuple):
    """A leaf in bytes.

    Attributes:
      position_table, positions: the mask; empty if all weights are kept.
      codebook: the shared values, and their scale; empty if no value is shared.
      value_table, values: the assignments of the kept weights, or else their numbers.
    """

    position_table: bytes
    positions: bytes
    codebook: bytes
    value_table: bytes
    values: bytes


def encode(
    name: str,
    leaf: np.ndarray,
    mask: np.ndarray,
    shared: Shared | None,
    earlier: Sequence[np.ndarray],
    coders: Coders,
) -> tuple[int, Sections]:
    """`(flags, sections)`: the shorter of the forms that the leaf may have.

    Args:
      name: the leaf's path, for messages.
      leaf: the numbers, if they are not shared.
      mask: bool, like the leaf; only kept numbers are coded.
      shared: the shared leaf; None without.
      earlier: the masks of the leaves before.
      coders: the codes.

    Raises:
      ValueError: a kept number is not finite, the shared leaf has another shape or dtype, or
        assignments outside its codebook.

    >>> from jaxtickets.compress.entropy_coding import SYMBOL_CODERS
    >>> from jaxtickets.compress.position_coding import POSITION_CODERS
    >>> coders = Coders(POSITION_CODERS["bitmap"], SYMBOL_CODERS["fixed"])
    >>> leaf = np.array([0.5, 0.25, 3.0, 0.125], np.float32)
    >>> flags, sections = encode("w", leaf, leaf < 1, None, (), coders)
    >>> flags == PRUNED, sections.positions.hex(), len(sections.values)  # 2 + 3 · 2 bytes
    (True, 'd0', 8)
    """
    where, pruned = Coded(b"", b""), not mask.all()
    if pruned:
        where = coders.positions.encode(mask, earlier, coders.symbols, coders.index_bits)
    if shared is None:
        _check_finite(name, leaf[mask])
        forms = _unshared_forms(leaf[mask], coders.symbols)
    else:
        shared = jax.tree.map(np.asarray, shared)
        _check_shared(name, leaf, shared)
        _check_finite(name, values(shared)[mask])
        forms = _shared_forms(mask, shared, coders.symbols)
    flags, sections = min(forms, key=lambda form: sum(map(len, form[1])))
    return flags | PRUNED * pruned, sections._replace(
        position_table=where.table, positions=where.stream
    )


def decode(
    flags: int,
    sections: Sections,
    shape: tuple[int, ...],
    dtype: np.dtype,
    earlier: Sequence[np.ndarray],
    coders: Coders,
) -> tuple[np.ndarray, np.ndarray]:
    """`(leaf, mask)`: the inverse of `encode`; the leaf is zero where it is pruned.

    Raises:
      ValueError: the sections are damaged.

    >>> from jaxtickets.compress.entropy_coding import SYMBOL_CODERS
    >>> from jaxtickets.compress.position_coding import POSITION_CODERS
    >>> coders = Coders(POSITION_CODERS["bitmap"], SYMBOL_CODERS["fixed"])
    >>> leaf = np.array([0.5, 0.25, 3.0, 0.125], np.float32)
    >>> flags, sections = encode("w", leaf, leaf < 1, None, (), coders)
    >>> back, mask = decode(flags, sections, leaf.shape, leaf.dtype, (), coders)
    >>> back.tolist(), mask.tolist()
    ([0.5, 0.25, 0.0, 0.125], [True, True, False, True])
    """
    mask = np.ones(shape, bool)
    if flags & PRUNED:
        where = Coded(sections.position_table, sections.positions)
        mask = coders.positions.decode(where, shape, earlier, coders.symbols)
    leaf, count = np.zeros(shape, dtype), int(mask.sum())
    if not flags & SHARED:
        leaf[mask] = read_array(sections.values, dtype)[0]
        return leaf, mask
    codebook, rest = read_array(sections.codebook, dtype)
    scale = read_array(rest, dtype)[0] if flags & SCALED else None
    coded = Coded(sections.value_table, sections.values)
    assignments = np.zeros(shape, np.int32)
    assignments[mask] = coders.symbols.decode(coded, len(codebook), count)
    if count:
        leaf[mask] = values(Shared(codebook, assignments, scale))[mask]
    return leaf, mask


def _unshared_forms(numbers: np.ndarray, symbols: SymbolCoder) -> list[tuple[int, Sections]]:
    plain = Sections(b"", b"", b"", b"", write_array(numbers))
    bits = numbers.view(f"u{numbers.dtype.itemsize}")  # -0.0 is not 0.0
    distinct, assignments = np.unique(bits, return_inverse=True)
    if len(distinct) > MOST_VALUES:
        return [(0, plain)]
    return [(0, plain), _shared_form(distinct.view(numbers.dtype), assignments, b"", symbols)]


def _shared_forms(
    mask: np.ndarray, shared: Shared, symbols: SymbolCoder
) -> list[tuple[int, Sections]]:
    """With the whole codebook, which may be consecutive numbers, and with the values in use."""
    codebook, assignments = shared.codebook, shared.assignments[mask]
    scale = b"" if shared.scale is None else write_array(shared.scale)
    used, places = np.unique(assignments, return_inverse=True)
    return [
        _shared_form(codebook, assignments, scale, symbols),
        _shared_form(codebook[used], places, scale, symbols),
    ]


def _shared_form(
    codebook: np.ndarray, assignments: np.ndarray, scale: bytes, symbols: SymbolCoder
) -> tuple[int, Sections]:
    coded = symbols.encode(assignments.astype(np.int64), len(codebook))
    sections = Sections(b"", b"", write_array(codebook) + scale, *coded)
    return SHARED | (SCALED if scale else 0), sections


# --- arrays --------------------------------------------------------------------------------------


def write_array(numbers: np.ndarray) -> bytes:
    """A vector in the shortest form that holds it exactly: the form, the count, the data.

    >>> len(write_array(np.array([0.5, 2.0, 0.25]))), len(write_array(np.array([0.1, 2.0, 0.25])))
    (8, 26)
    """
    start = length(len(numbers))
    if len(numbers) > 1 and numbers[0] == np.rint(numbers[0]) and (np.diff(numbers) == 1).all():
        return bytes([CONSECUTIVE]) + start + np.float64(numbers[0]).tobytes()
    for form, kind in enumerate(NARROW):
        with np.errstate(over="ignore", invalid="ignore"):
            near = numbers.astype(kind)
            if near.astype(numbers.dtype).tobytes() == numbers.tobytes():
                return bytes([form]) + start + near.tobytes()
    return bytes([OWN]) + start + numbers.tobytes()


def read_array(data: bytes, dtype: np.dtype) -> tuple[np.ndarray, bytes]:
    """`(numbers, rest)`: the inverse of `write_array`, and the bytes after it.

    >>> numbers, rest = read_array(write_array(np.array([0.5, 2.0])) + b"rest", np.dtype(float))
    >>> numbers.tolist(), rest
    ([0.5, 2.0], b'rest')
    """
    if not data:
        raise ValueError("numbers are missing")
    count, start = read_length(data, 1)
    if data[0] == CONSECUTIVE:
        first = np.frombuffer(data, "<f8", 1, start)
        return (first + np.arange(count)).astype(dtype), data[start + 8 :]
    kind = dtype if data[0] == OWN else np.dtype(NARROW[data[0]])
    end = start + count * kind.itemsize
    return np.frombuffer(data[start:end], kind, count).astype(dtype), data[end:]


def length(number: int) -> bytes:
    """A whole number, seven bits to a byte, lowest first; the highest bit says that more follow.

    >>> length(5).hex(), length(300).hex()  # 300 = 44 + 2 · 128
    ('05', 'ac02')
    """
    return bytes([number]) if number < 128 else bytes([number % 128 + 128]) + length(number // 128)


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """`(number, end)`: the whole number at `at`, and the place after it.

    Raises:
      ValueError: the data end before it does.

    >>> read_length(bytes.fromhex("ac02ff"), at=0)
    (300, 2)
    """
    number, place = 0, at
    while place < len(data):
        number += (data[place] & 127) << 7 * (place - at)
        place += 1
        if data[place - 1] < 128:
            return number, place
    raise ValueError("the data end early")


# --- checks --------------------------------------------------------------------------------------


def _check_finite(name: str, numbers: np.ndarray) -> None:
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds NaN or infinity, which can't be compressed")


def _check_shared(name: str, leaf: np.ndarray, shared: Shared) -> None:
    shape, kind = shared.assignments.shape, shared.codebook.dtype
    if (shape, kind) != (leaf.shape, leaf.dtype):
        raise ValueError(
            f"the shared {name} is {kind}{list(shape)}, the leaf {leaf.dtype}{list(leaf.shape)}"
        )
    places, size = shared.assignments, shared.codebook.size
    if places.size and not 0 <= places.min() <= places.max() < size:
        raise ValueError(f"the shared {name} has assignments outside its codebook of {size} values")
