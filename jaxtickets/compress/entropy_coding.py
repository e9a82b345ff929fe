"""Lossless codes of symbols: fixed widths, Huffman's, and a range coder near the entropy bound.

Symbols are whole numbers from 0 to `alphabet - 1`. A code that is not adaptive needs a table, which
is counted. Of n symbols with the empirical distribution p, no code without a table-like cost is
shorter than `n H(p) = -Σ_s n_s log2(n_s / n)` bits. Huffman's code needs less than n (H + 1) bits,
and at least n, however skewed p is. The range coder learns p as it goes, and so needs no table:
about `(k - 1)/2 log2 n` bits above the bound, for an alphabet of k.

The coders are constriction's (Bamler, "Understanding entropy coding with asymmetric numeral systems
(ANS): a statistician's perspective", 2022).
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from constriction import stream
from constriction import symbol as codes

BLOCKS = 16
"""The range coder's counts are brought up to date when a further 1 / BLOCKS of the symbols are
coded: stale counts cost little, and constriction codes a whole block at once."""


class Coded(NamedTuple):
    """Coded symbols.

    Attributes:
      table: what the decoder must know of the code; empty if it needs nothing.
      stream: the symbols.
    """

    table: bytes
    stream: bytes


class SymbolCoder(NamedTuple):
    """A code.

    Attributes:
      encode: `encode(symbols int[n], alphabet) -> Coded`.
      decode: `decode(coded, alphabet, n) -> symbols int64[n]`; of damaged input it raises
        ValueError or returns other symbols.
    """

    encode: Callable[[np.ndarray, int], Coded]
    decode: Callable[[Coded, int, int], np.ndarray]


def entropy(symbols: np.ndarray) -> float:
    """The entropy of the symbols' empirical distribution, in bits a symbol; 0 of no symbols.

    >>> entropy(np.array([0, 0, 1, 2])), entropy(np.array([7, 7]))
    (1.5, 0.0)
    """
    _, counts = np.unique(symbols, return_counts=True)
    shares = counts / max(1, counts.sum())
    return float((shares * -np.log2(shares)).sum())


def bound(symbols: np.ndarray) -> float:
    """The entropy bound of all symbols together, in bytes.

    >>> bound(np.array([0, 1] * 8))  # 16 bits
    2.0
    """
    return len(symbols) * entropy(symbols) / 8


# --- fixed width ---------------------------------------------------------------------------------


def _width(alphabet: int) -> int:
    """The bits of a symbol of fixed width: `ceil(log2(alphabet))`."""
    return max(0, alphabet - 1).bit_length()


def pack_numbers(numbers: np.ndarray, width: int) -> bytes:
    """Whole numbers of `width` bits each, highest bit first, the last byte padded with zeros.

    >>> pack_numbers(np.array([1, 2, 15]), width=4).hex()
    '12f0'
    """
    bits = (np.asarray(numbers, np.int64)[:, None] >> np.arange(width)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def unpack_numbers(data: bytes, width: int, count: int) -> np.ndarray:
    """int64`[count]`: the inverse of `pack_numbers`; raises ValueError if `data` is too short.

    >>> unpack_numbers(bytes.fromhex("12f0"), width=4, count=3).tolist()
    [1, 2, 15]
    """
    if len(data) * 8 < width * count:
        raise ValueError(f"{len(data)} bytes do not hold {count} numbers of {width} bits")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=width * count)
    return bits.reshape(count, width).astype(np.int64) @ (1 << np.arange(width)[::-1])


def _fixed_encode(symbols: np.ndarray, alphabet: int) -> Coded:
    return Coded(b"", pack_numbers(symbols, _width(alphabet)))


def _fixed_decode(coded: Coded, alphabet: int, count: int) -> np.ndarray:
    return unpack_numbers(coded.stream, _width(alphabet), count)


# --- Huffman -------------------------------------------------------------------------------------


def _trees(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols in use, and probabilities `2^-length` whose Huffman code has these lengths.

    So the lengths are all that a table has to hold.
    """
    used = np.flatnonzero(lengths)
    return used, 0.5 ** lengths[used].astype(np.float64)


def code_lengths(symbols: np.ndarray, alphabet: int) -> np.ndarray:
    """int64`[alphabet]`: the bits of each symbol in a Huffman code; 0 of a symbol without any.

    A symbol that is alone has the length 1 here, and its stream no bits.

    >>> code_lengths(np.array([0, 0, 0, 1, 3]), alphabet=4).tolist()
    [1, 2, 0, 2]
    """
    counts = np.bincount(symbols, minlength=alphabet)
    used = np.flatnonzero(counts)
    lengths = np.zeros(alphabet, np.int64)
    if len(used) == 1:
        lengths[used] = 1
    elif len(used):
        tree = codes.huffman.EncoderHuffmanTree(counts[used].astype(np.float64))
        for place, symbol in enumerate(used):
            encoder = codes.QueueEncoder()
            encoder.encode_symbol(place, tree)
            lengths[symbol] = encoder.get_compressed_and_bitrate()[1]
    return lengths


def _huffman_encode(symbols: np.ndarray, alphabet: int) -> Coded:
    lengths = code_lengths(symbols, alphabet)
    width = int(lengths.max(initial=0)).bit_length()
    table = bytes([width]) + pack_numbers(lengths, width)
    used, probabilities = _trees(lengths)
    if len(used) < 2:
        return Coded(table, b"")
    tree, encoder = codes.huffman.EncoderHuffmanTree(probabilities), codes.QueueEncoder()
    for place in np.searchsorted(used, symbols).tolist():
        encoder.encode_symbol(place, tree)
    words, bits = encoder.get_compressed_and_bitrate()
    return Coded(table, words.astype("<u4").tobytes()[: -(-bits // 8)])


def _huffman_decode(coded: Coded, alphabet: int, count: int) -> np.ndarray:
    if not coded.table:
        raise ValueError("the Huffman table is missing")
    used, probabilities = _trees(unpack_numbers(coded.table[1:], coded.table[0], alphabet))
    if count and not len(used):
        raise ValueError("the Huffman table has no symbol")
    if len(used) < 2:
        return np.full(count, used[0] if len(used) else 0)
    tree = codes.huffman.DecoderHuffmanTree(probabilities)
    decoder = codes.QueueDecoder(read_words(coded.stream))
    return used[[decoder.decode_symbol(tree) for _ in range(count)]] if count else used[:0]


# --- range coder ---------------------------------------------------------------------------------


def stored_words(words: np.ndarray) -> bytes:
    """The bytes of the 32-bit words of a range coder, without zero bytes at the end.

    >>> stored_words(np.array([258, 0], np.uint32)).hex()
    '0201'
    """
    return words.astype("<u4").tobytes().rstrip(b"\0")


def read_words(stream: bytes) -> np.ndarray:
    """uint32: the inverse of `stored_words`, up to words of zeros, which decoders imply.

    >>> read_words(bytes.fromhex("0201")).tolist()
    [258]
    """
    return np.frombuffer(stream + bytes(-len(stream) % 4), "<u4").astype(np.uint32)


def _blocks(count: int) -> list[tuple[int, int]]:
    """`(start, end)` of the blocks whose symbols are coded with the same counts."""
    starts = [0]
    while starts[-1] < count:
        starts.append(min(count, starts[-1] + max(1, starts[-1] // BLOCKS)))
    return list(itertools.pairwise(starts))


def _model(counts: np.ndarray) -> stream.model.Categorical:
    """Probabilities in proportion to `counts + 1/2` (Krichevsky and Trofimov, 1981)."""
    return stream.model.Categorical(counts + 0.5, perfect=False)


def _range_encode(symbols: np.ndarray, alphabet: int) -> Coded:
    if alphabet < 2:
        return Coded(b"", b"")
    encoder, counts = stream.queue.RangeEncoder(), np.zeros(alphabet)
    for start, end in _blocks(len(symbols)):
        encoder.encode(symbols[start:end].astype(np.int32), _model(counts))
        counts += np.bincount(symbols[start:end], minlength=alphabet)
    return Coded(b"", stored_words(encoder.get_compressed()))


def _range_decode(coded: Coded, alphabet: int, count: int) -> np.ndarray:
    symbols, counts = np.zeros(count, np.int64), np.zeros(alphabet)
    if alphabet < 2:
        return symbols
    decoder = stream.queue.RangeDecoder(read_words(coded.stream))
    for start, end in _blocks(count):
        symbols[start:end] = decoder.decode(_model(counts), end - start)
        counts += np.bincount(symbols[start:end], minlength=alphabet)
    return symbols


SYMBOL_CODERS: dict[str, SymbolCoder] = {
    "fixed": SymbolCoder(_fixed_encode, _fixed_decode),
    "huffman": SymbolCoder(_huffman_encode, _huffman_decode),
    "range": SymbolCoder(_range_encode, _range_decode),
}
"""`fixed` is weight sharing without entropy coding, as before Huffman's in the paper's tables."""
