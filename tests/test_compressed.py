"""Compressed tickets: to the bit and back, what their bytes are for, damaged and foreign files."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtickets import masks, nets
from jaxtickets.compress import leaf_coding
from jaxtickets.compress.entropy_coding import SYMBOL_CODERS
from jaxtickets.compress.position_coding import POSITION_CODERS
from jaxtickets.compress.weight_sharing import QUANTISERS, restore, rounded, share
from jaxtickets.io import compressed
from jaxtickets.io.compressed import compression_factor, load_compressed, save_compressed, sizes
from jaxtickets.io.errors import UserError
from jaxtickets.types import Ticket

quick = settings(max_examples=30, deadline=None, database=None)
NET = nets.make("lenet300_100", widths=(6, 5))
IMAGE = (5, 4, 1)
LEARNED, RANGE = POSITION_CODERS["learned"], SYMBOL_CODERS["range"]


@pytest.fixture(scope="module")
def ticket():
    shapes, _ = jax.eval_shape(nets.functional(NET, IMAGE).init, jax.random.key(0))
    draw = np.random.default_rng(0)
    mask = jax.tree.map(lambda p: draw.random(p.shape) < (0.4 if p.ndim > 1 else 1), shapes)
    params = jax.tree.map(lambda m: np.where(m, draw.standard_normal(m.shape), 0).astype("f"), mask)
    return Ticket(params, {}, mask, jnp.int32(3))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("symbols", SYMBOL_CODERS)
@pytest.mark.parametrize("positions", POSITION_CODERS)
def test_every_pair_of_codes_gives_back_net_ticket_and_logits(tmp_path, ticket, positions, symbols):
    leaves = masks.paths(ticket.params)
    sharing = share(ticket.params, ticket.mask, 7, leaves)
    ticket = ticket._replace(params=restore(sharing, ticket.mask, ticket.params))
    path = save_compressed(
        tmp_path / "net.jxt", NET, ticket, {"seed": 1, "loss": np.inf}, sharing, positions, symbols
    )
    net, found, provenance = load_compressed(path)
    assert (net, provenance) == (NET, {"seed": 1, "loss": np.inf})
    same(found, ticket)
    images = np.random.default_rng(1).standard_normal((3, *IMAGE)).astype("f")
    same(*(logits(params, images) for params in (found.params, ticket.params)))


@jax.jit
def logits(params, images):
    return nets.functional(NET, IMAGE).apply(params, {}, images)[0]


@pytest.mark.parametrize("quantiser", ["linear", "uniform", "uniform_by_output"])
@pytest.mark.parametrize("near", [lambda sharing: sharing, rounded])
def test_what_is_shared_in_any_way_comes_back_to_the_bit(tmp_path, ticket, quantiser, near):
    prunable = masks.prunable(ticket.params)
    sharing = near(share(ticket.params, ticket.mask, 15, prunable, QUANTISERS[quantiser]))
    path = save_compressed(tmp_path / "net.jxt", NET, ticket, {}, sharing)
    _, found, _ = load_compressed(path)
    same(found.params, restore(sharing, ticket.mask, ticket.params))


def test_statistics_and_unknown_nets_come_back_too(tmp_path, ticket):
    stats = {"bn": {"mean": np.array([0.1, -0.0], "f"), "count": np.array(7, "i4")}, "other": {}}
    stats["other"]["wide"] = np.array([1e300], "f8")
    with jax.enable_x64(True):
        path = save_compressed(tmp_path / "net.jxt", None, ticket._replace(stats=stats), {})
        net, found, _ = load_compressed(path)
        assert net is None
        same(found.stats, stats)


@quick
@given(
    shape=st.lists(st.integers(1, 6), max_size=3).map(tuple),
    density=st.sampled_from([0, 0.3, 1]),
    distinct=st.sampled_from([1, 2, 30]),
    dtype=st.sampled_from(["f2", "f4", "f8", "i4", "bool"]),
    seed=st.integers(0, 99),
)
def test_leaves_of_any_shape_and_type_come_back_to_the_bit(shape, density, distinct, dtype, seed):
    draw = np.random.default_rng(seed)
    some = (9 * draw.standard_normal(distinct)).astype(dtype)
    leaf, mask = np.asarray(draw.choice(some, shape)), np.asarray(draw.random(shape) < density)
    for symbols in SYMBOL_CODERS.values():
        coders = leaf_coding.Coders(LEARNED, symbols)
        flags, sections = leaf_coding.encode("w", leaf, mask, None, [], coders)
        back, kept = leaf_coding.decode(flags, sections, shape, leaf.dtype, [], coders)
        same((back, kept), (np.where(mask, leaf, np.zeros((), dtype)), mask))


def test_numbers_take_the_narrowest_type_that_holds_them():
    # the form and the count are a byte each
    for numbers, size in (([1, -5], 2), ([0.5, 2.25], 4), ([0.1], 4), ([3, 4, 5, 6], 8), ([], 0)):
        data = leaf_coding.write_array(np.array(numbers, "f"))
        assert len(data) == 2 + size
        found, rest = leaf_coding.read_array(data + b"x", np.dtype("f"))
        assert (found.tolist(), rest) == (np.array(numbers, "f").tolist(), b"x")


def test_lengths_worked_by_hand():
    assert leaf_coding.length(5) == b"\x05"
    assert leaf_coding.length(300) == bytes([300 - 256 + 128, 2])  # 300 is 2 · 128 + 44
    for number in (0, 127, 128, 2**40):
        assert leaf_coding.read_length(b"x" + leaf_coding.length(number) + b"y", 1)[0] == number


# --- sizes ---------------------------------------------------------------------------------------


def test_the_parts_sum_to_the_files_size_and_the_factor_is_of_float32(tmp_path, ticket):
    prunable = masks.prunable(ticket.params)
    sharing = share(ticket.params, ticket.mask, 4, prunable)
    path = tmp_path / "net.jxt"
    save_compressed(path, NET, ticket, {}, sharing, "relative", "huffman")
    found = sizes(path)
    assert found.total == path.stat().st_size == sum(found) - found.total
    assert min(found) > 0
    assert found.unshared == 3 * 2 + 4 * (6 + 5 + 10)  # biases: each a form, a count and float32
    assert compression_factor(path, 1000) == 4000 / found.total


def test_relative_indices_take_the_bits_that_are_asked_for(tmp_path, ticket):
    path = tmp_path / "net.jxt"
    tables = {}
    for bits in (3, 6):
        save_compressed(path, NET, ticket, {}, None, "relative", "huffman", index_bits=bits)
        tables[bits] = sizes(path).position_tables
        same(load_compressed(path)[1], ticket)
    assert tables[3] < tables[6]


# --- damaged, foreign, refused -------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(ticket, tmp_path_factory):
    return save_compressed(tmp_path_factory.mktemp("nets") / "net.jxt", NET, ticket, {})


@pytest.mark.parametrize("read", [load_compressed, sizes])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-1], "damaged: its checksum differs"),
        (lambda data: data[: len(data) // 2], "damaged: its checksum differs"),
        (
            lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
            "damaged: its checksum differs",
        ),
        (lambda data: data[:-1] + bytes([data[-1] ^ 128]), "damaged: its checksum differs"),
        (lambda data: data + b"\0", "damaged: its checksum differs"),
        (lambda data: b"", "is not a compressed ticket"),
        (lambda data: b"JX", "is not a compressed ticket"),
        (lambda data: b"\x89PNG" + data, "is not a compressed ticket"),
        (lambda data: data[:3] + b"\2" + data[4:], "has version 2, not 1"),
        # with a checksum that fits
        (lambda data: signed(data[:-20]), "damaged: "),
        (lambda data: signed(data[:-4] + b"\0"), "damaged: 1 bytes are left over"),
        (lambda data: signed(data[:10] + b"\xff" + data[11:-4]), "damaged: "),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, written, read, change, says):
    path = tmp_path / "bad.jxt"
    path.write_bytes(change(written.read_bytes()))
    with pytest.raises(UserError, match=says) as error:
        read(path)
    assert "\n" not in str(error.value) and "bad.jxt" in str(error.value)


def signed(data):
    return data + zlib.crc32(data).to_bytes(4, "little")


def test_every_flipped_bit_is_noticed(tmp_path, written):
    data, path = written.read_bytes(), tmp_path / "bad.jxt"
    for place in np.random.default_rng(0).integers(0, 8 * len(data), 60).tolist():
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UserError):
            sizes(path)


@pytest.mark.parametrize("place", ["missing.jxt", ""])
def test_a_missing_file_and_a_folder_are_said_in_one_line(tmp_path, place):
    with pytest.raises(UserError, match="can't read"):
        load_compressed(tmp_path / place)


def broken(ticket, value):
    kernel = np.array(ticket.params["fc1"]["kernel"])
    kernel[np.asarray(ticket.mask["fc1"]["kernel"])] = value
    return ticket._replace(params=masks.put(ticket.params, ("fc1/kernel",), [kernel]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {"ticket": broken(t, np.nan)}, "fc1/kernel holds NaN or infinity"),
        (lambda t: {"ticket": t._replace(stats={"m": np.array([np.inf])})}, "m holds NaN"),
        (lambda t: {"ticket": t._replace(mask={})}, "the mask"),
        (lambda t: {"ticket": t._replace(stats=[np.ones(2)])}, "statistics must be nested dicts"),
        (lambda t: {"ticket": t._replace(stats={"a/b": np.ones(2)})}, "must be nested dicts"),
        (lambda t: {"positions": "gaps"}, "unknown coder of positions 'gaps': one of bitmap"),
        (lambda t: {"symbols": "ans"}, "unknown coder of symbols 'ans': one of fixed"),
        (lambda t: {"positions": "relative", "index_bits": 40}, "indices of 40 bits"),
        (lambda t: {"sharing": one(t, "fc9/kernel")}, "no leaf 'fc9/kernel' to share"),
        (lambda t: {"sharing": one(t, "fc2/kernel")}, r"shared fc2/kernel is float32\[20, 6\]"),
        (lambda t: {"sharing": one(t, codebook=jnp.ones(1))}, "outside its codebook of 1 values"),
        (lambda t: {"sharing": one(t, codebook=jnp.full(4, jnp.nan))}, "fc1/kernel holds NaN"),
    ],
)
def test_what_cannot_be_written_is_refused_and_the_old_file_stays(tmp_path, ticket, change, says):
    path = tmp_path / "net.jxt"
    path.write_bytes(b"old")
    usual = {"path": path, "net": NET, "ticket": ticket, "provenance": {}}
    with pytest.raises(ValueError, match=says) as error:
        save_compressed(**(usual | change(ticket)))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


def one(ticket, path="fc1/kernel", **changes):
    sharing = share(ticket.params, ticket.mask, 4, ("fc1/kernel",))
    return {path: sharing["fc1/kernel"]._replace(**changes)}


def test_a_full_disk_leaves_the_old_file(tmp_path, ticket, monkeypatch):
    path = tmp_path / "net.jxt"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_compressed(path, NET, ticket, {})
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


def test_the_headers_dictionary_is_part_of_the_format():
    # whoever changes it must raise the version
    assert (compressed.VERSION, zlib.crc32(compressed.COMMON)) == (1, 2565571209)
