"""How a file tells which weights are kept: three ways behind one interface."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxtickets.compress import mask_coding
from jaxtickets.compress.entropy_coding import Coded, SymbolCoder
from jaxtickets.compress.sparse_indices import index_bits, mask_of, relative_indices

COUNT_BYTES = 4
"""The bytes in which the number of relative indices is stored."""


class PositionCoder(NamedTuple):
    """A code of masks.

    Attributes:
      encode: `encode(mask, earlier, symbols, bits) -> Coded`: of a bool mask, after the masks
        `earlier` of the same file, with a code of symbols if it needs one; `bits` are those of a
        relative index, None for the paper's.
      decode: `decode(coded, shape, earlier, symbols) -> mask`; raises ValueError if it is damaged.
    """

    encode: Callable[[np.ndarray, Sequence[np.ndarray], SymbolCoder, int | None], Coded]
    decode: Callable[[Coded, tuple[int, ...], Sequence[np.ndarray], SymbolCoder], np.ndarray]


def _bitmap_encode(
    mask: np.ndarray, earlier: Sequence[np.ndarray], symbols: SymbolCoder, bits: int | None
) -> Coded:
    del earlier, symbols, bits
    return Coded(b"", np.packbits(mask.ravel()).tobytes())


def _bitmap_decode(
    coded: Coded, shape: tuple[int, ...], earlier: Sequence[np.ndarray], symbols: SymbolCoder
) -> np.ndarray:
    del earlier, symbols
    mask = np.zeros(shape, bool)
    bits = np.unpackbits(np.frombuffer(coded.stream, np.uint8), count=mask.size)
    return bits.astype(bool).reshape(shape)


def _relative_encode(
    mask: np.ndarray, earlier: Sequence[np.ndarray], symbols: SymbolCoder, bits: int | None
) -> Coded:
    del earlier
    bits = index_bits(mask.shape) if bits is None else bits
    indices = relative_indices(mask, bits)
    coded = symbols.encode(indices, 2**bits)
    start = bytes([bits]) + len(indices).to_bytes(COUNT_BYTES, "little")
    return Coded(start + coded.table, coded.stream)


def _relative_decode(
    coded: Coded, shape: tuple[int, ...], earlier: Sequence[np.ndarray], symbols: SymbolCoder
) -> np.ndarray:
    del earlier
    end = 1 + COUNT_BYTES
    if len(coded.table) < end:
        raise ValueError("the table of relative indices is cut off")
    bits, count = coded.table[0], int.from_bytes(coded.table[1:end], "little")
    found = symbols.decode(Coded(coded.table[end:], coded.stream), 2**bits, count)
    return mask_of(found, shape, bits)


def _learned_encode(
    mask: np.ndarray, earlier: Sequence[np.ndarray], symbols: SymbolCoder, bits: int | None
) -> Coded:
    del symbols, bits
    return Coded(b"", mask_coding.encode(mask, earlier))


def _learned_decode(
    coded: Coded, shape: tuple[int, ...], earlier: Sequence[np.ndarray], symbols: SymbolCoder
) -> np.ndarray:
    del symbols
    return mask_coding.decode(coded.stream, shape, earlier)


POSITION_CODERS: dict[str, PositionCoder] = {
    "bitmap": PositionCoder(_bitmap_encode, _bitmap_decode),
    "relative": PositionCoder(_relative_encode, _relative_decode),
    "learned": PositionCoder(_learned_encode, _learned_decode),
}
"""A bit for each weight; Deep Compression's relative indices (`sparse_indices`), in a code of
symbols; and `mask_coding`, the shortest."""
