"""Codes of symbols, indices and masks: round trips, lengths beside the entropy, damaged input."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtickets.compress import mask_coding
from jaxtickets.compress.entropy_coding import (
    SYMBOL_CODERS,
    Coded,
    bound,
    code_lengths,
    entropy,
    pack_numbers,
    unpack_numbers,
)
from jaxtickets.compress.position_coding import POSITION_CODERS
from jaxtickets.compress.sparse_indices import index_bits, mask_of, relative_indices

quick = settings(max_examples=30, deadline=None, database=None)
shapes = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)


def skewed(n, alphabet, seed, concentration=0.3):
    draw = np.random.default_rng(seed)
    return draw.choice(alphabet, n, p=draw.dirichlet(np.full(alphabet, concentration)))


# --- symbols -------------------------------------------------------------------------------------


def test_the_entropy_of_a_half_and_two_quarters_is_one_and_a_half_bits():
    symbols = np.array([0, 0, 1, 2, 0, 0, 1, 2])
    assert entropy(symbols) == 1.5 and bound(symbols) == 1.5
    assert entropy(np.zeros(9, int)) == 0 and entropy(np.zeros(0, int)) == 0


def test_huffman_lengths_worked_by_hand():
    # 8, 4, 2, 1, 1 times: each as often as all rarer ones, so 1, 2, 3, 4, 4 bits; 3 is never used
    symbols = np.repeat([4, 0, 2, 1, 5], [8, 4, 2, 1, 1])
    np.testing.assert_array_equal(code_lengths(symbols, 7), [2, 4, 3, 0, 1, 4, 0])
    coded = SYMBOL_CODERS["huffman"].encode(symbols, 7)
    # 8 + 8 + 6 + 8 bits are 4 bytes; lengths of up to 4 take 3 bits, 21 are 3 bytes, and their 3
    assert len(coded.stream) == 4 and len(coded.table) == 4


def test_numbers_of_three_bits_worked_by_hand():
    assert pack_numbers(np.array([5, 1, 6]), 3) == bytes([0b10100111, 0b00000000])
    np.testing.assert_array_equal(unpack_numbers(bytes([0b10100111, 0]), 3, 3), [5, 1, 6])


@quick
@pytest.mark.parametrize("name", SYMBOL_CODERS)
@given(data=st.data(), alphabet=st.integers(1, 40))
def test_every_code_gives_back_what_it_was_given(name, data, alphabet):
    drawn = data.draw(st.lists(st.integers(0, alphabet - 1), max_size=60))
    symbols, coder = np.array(drawn, np.int64), SYMBOL_CODERS[name]
    coded = coder.encode(symbols, alphabet)
    np.testing.assert_array_equal(coder.decode(coded, alphabet, len(symbols)), symbols)


@pytest.mark.parametrize("seed", range(4))
def test_lengths_against_the_entropy_bound(seed):
    n, alphabet = 20_000, (2, 5, 16, 40)[seed]
    symbols = skewed(n, alphabet, seed)
    least = bound(symbols)
    lengths = {name: len(coder.encode(symbols, alphabet).stream) for name, coder in CODERS}
    assert least <= lengths["huffman"] < least + n / 8
    # the price of learning each of the other probabilities is log2(n) / 2 bits
    learning = (alphabet - 1) * np.log2(n) / 16
    assert least < lengths["range"] < 1.005 * least + learning + 8
    assert lengths["fixed"] == -(-n * int(np.ceil(np.log2(alphabet))) // 8)


CODERS = tuple(SYMBOL_CODERS.items())


@pytest.mark.parametrize(
    ("name", "coded"),
    [
        ("fixed", Coded(b"", b"\1")),
        ("huffman", Coded(b"", b"\1")),
        ("huffman", Coded(b"\3", b"\1")),
        ("huffman", Coded(b"\0", b"")),
        ("huffman", Coded(b"\2" + pack_numbers(np.array([1, 2, 2, 0, 0]), 2), b"")),
    ],
)
def test_codes_cut_short_are_refused(name, coded):
    with pytest.raises(ValueError):
        SYMBOL_CODERS[name].decode(coded, 5, 9)


# --- relative indices ----------------------------------------------------------------------------


def test_relative_indices_worked_by_hand():
    # at 1, 2, 9 with two bits: distances 1, 0, and 6, which is two fillers of 3 and 0
    mask = np.isin(np.arange(12), [1, 2, 9])
    indices = relative_indices(mask, 2)
    np.testing.assert_array_equal(indices, [1, 0, 3, 3, 0])
    np.testing.assert_array_equal(mask_of(indices, (12,), 2), mask)


def test_the_papers_bits_are_eight_of_convolutions_and_five_of_dense_layers():
    assert index_bits((5, 5, 1, 20)) == 8 and index_bits((784, 300)) == 5 and index_bits((10,)) == 5


@quick
@given(shapes, st.floats(0, 1), st.integers(1, 9), st.integers(0, 99))
def test_indices_give_back_the_mask_and_fit_in_their_bits(shape, density, bits, seed):
    mask = np.random.default_rng(seed).random(shape) < density
    indices = relative_indices(mask, bits)
    assert not len(indices) or (indices.min() >= 0 and indices.max() < 2**bits)
    assert (indices < 2**bits - 1).sum() == mask.sum()  # all others are fillers
    np.testing.assert_array_equal(mask_of(indices, shape, bits), mask)


def test_indices_that_lead_past_the_end_and_bits_out_of_range_are_refused():
    with pytest.raises(ValueError, match="lead to weight 4 of 4"):
        mask_of(np.array([3, 0]), (2, 2), 3)
    with pytest.raises(ValueError, match="of 0 bits: must be 1 to 32"):
        relative_indices(np.ones(3, bool), 0)


# --- masks ---------------------------------------------------------------------------------------


@quick
@pytest.mark.parametrize("symbols", SYMBOL_CODERS)
@pytest.mark.parametrize("name", POSITION_CODERS)
@given(shape=shapes, density=st.sampled_from([0, 0.02, 0.3, 0.9, 1]), seed=st.integers(0, 99))
def test_every_code_of_positions_gives_back_the_mask(name, symbols, shape, density, seed):
    draw = np.random.default_rng(seed)
    earlier = [draw.random((3, shape[0])) < 0.5, draw.random((2, 5)) < 0.5]
    mask, coder = draw.random(shape) < density, POSITION_CODERS[name]
    coded = coder.encode(mask, earlier, SYMBOL_CODERS[symbols], None)
    found = coder.decode(coded, shape, earlier, SYMBOL_CODERS[symbols])
    np.testing.assert_array_equal(found, mask)


def test_a_mask_without_structure_takes_little_more_than_its_entropy():
    mask = np.random.default_rng(0).random((200, 100)) < 0.05
    assert len(mask_coding.encode(mask)) < 1.02 * bound(mask.ravel()) + 16


def test_what_rows_outputs_and_the_layer_before_tell_is_learned():
    draw, shares = np.random.default_rng(1), np.linspace(0, 1, 100)[37 * np.arange(100) % 100]
    by_output = draw.random((200, 100)) < 0.3 * shares**3
    by_row = draw.random((200, 100)) < np.tile(np.linspace(0, 0.3, 10), 20)[:, None]  # periodic
    before = draw.random((50, 100)) < shares**2
    by_input = draw.random((100, 60)) < 0.3 * shares[:, None] ** 4
    assert mask_coding.encode(by_row)[0] % 10 == 0  # the lag is the period
    for mask in (by_output, by_row):
        assert len(mask_coding.encode(mask)) < 0.94 * bound(mask.ravel())
    told = len(mask_coding.encode(by_input, [before]))
    assert told < 0.97 * min(len(mask_coding.encode(by_input)), bound(by_input.ravel()))


def test_the_learned_code_is_the_same_on_every_machine():
    # of whole numbers alone, so that no library's random numbers or logarithms are in the mask
    i, j = np.meshgrid(np.arange(40), np.arange(30), indexing="ij")
    mask = (i * i + 7 * j * (i % 5)) % 17 < 2
    assert (mask.sum(), zlib.crc32(mask_coding.encode(mask))) == (176, 1702588669)


def test_its_sums_are_exact_in_any_order():
    # whole multiples of 2^-22 below 2^30, where float64 has 53 bits
    draw = np.random.default_rng(0)
    features = mask_coding._features(
        density=0.03,
        some=0.3,
        rows=9,
        per_output=draw.integers(0, 9, 50),
        near=draw.integers(0, 20, 3),
        beside=draw.integers(0, 2, (3, 50)),
        hint=0.7,
    )
    for values, bits in ((features, 6), (mask_coding.FIRST, 16)):
        np.testing.assert_array_equal(values * 2**bits, np.rint(values * 2**bits))
    assert np.abs(features).max() < 2**7


def test_masks_cut_short_are_refused():
    for name, table in (("learned", b""), ("relative", b"\5")):
        with pytest.raises(ValueError, match=r"missing|cut off"):
            POSITION_CODERS[name].decode(Coded(table, b""), (4, 4), [], SYMBOL_CODERS["range"])
