"""Tickets as safetensors files and as programs: bit for bit, or one line on what is wrong."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported import close, examples, logits, random_ticket, small_net
from flax import linen as nn
from safetensors.numpy import load_file, save_file

from jaxtickets import nets
from jaxtickets.io import stablehlo
from jaxtickets.io.errors import UserError
from jaxtickets.io.portable import load_portable, save_portable
from jaxtickets.types import Ticket

NET, SHAPE = small_net("lenet5")
ABOUT = {"net": nets.to_json(NET), "density": 0.7, "loss": float("nan")}


def small(**leaves):
    params = {"a": {"kernel": np.arange(6, dtype="f").reshape(2, 3)}} | leaves
    mask = jax.tree.map(lambda leaf: np.arange(leaf.size).reshape(leaf.shape) % 3 != 1, params)
    return Ticket(params, {}, mask, np.int32(2))


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_ticket_comes_back_bit_for_bit_with_net_and_provenance(tmp_path):
    ticket = random_ticket(NET, SHAPE)
    path = save_portable(tmp_path / "ticket.safetensors", ticket, ABOUT)
    back, provenance = load_portable(path)
    same(back, ticket)
    assert nets.from_json(provenance["net"]) == NET
    assert provenance["density"] == 0.7 and np.isnan(provenance["loss"])
    assert [p.name for p in tmp_path.iterdir()] == ["ticket.safetensors"]


def test_any_number_comes_back(tmp_path):
    odd = small(
        half=jnp.array([1, jnp.nan, -0.0], jnp.bfloat16),
        empty=np.zeros((0, 3), "f"),
        scalar=np.array(np.inf, "f"),
        transposed=np.arange(6, dtype="i4").reshape(2, 3).T,
    )
    same(load_portable(save_portable(tmp_path / "t", odd, {}))[0], odd)


def test_other_programs_read_the_masks_as_bits(tmp_path):
    # six weights, of which the second and the fifth are removed: 101101 and two zeros are 180
    path = save_portable(tmp_path / "t", small(), {})
    arrays = load_file(path)
    assert sorted(arrays) == ["mask/a/kernel", "params/a/kernel"]
    np.testing.assert_array_equal(arrays["mask/a/kernel"], np.array([0b10110100], np.uint8))
    np.testing.assert_array_equal(arrays["params/a/kernel"], np.arange(6.0).reshape(2, 3))


def header(content):
    size = int.from_bytes(content[:8], "little")
    return size, json.loads(content[8 : 8 + size])


def test_no_flipped_byte_is_loaded_as_another_ticket(tmp_path):
    path = save_portable(tmp_path / "t", small(), {"seed": 1})
    content = path.read_bytes()
    damaged = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            back, provenance = load_portable(path)
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            damaged += 1
        else:  # a blank in the header
            same(back, small())
            assert provenance == {"seed": 1}
    assert damaged > len(content) - 8


@pytest.mark.parametrize("left", [0, 7, 8, 100, -1])
def test_a_truncated_file_says_so(tmp_path, left):
    path = save_portable(tmp_path / "t", small(), {})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"is no safetensors file, or is damaged: [^\n]*\Z"):
        load_portable(path)


def test_a_foreign_or_missing_file_says_so(tmp_path):
    path = tmp_path / "t"
    with pytest.raises(UserError, match="can't be read: No such file"):
        load_portable(path)
    save_file({"conv1.weight": np.ones(3, "f")}, path)
    with pytest.raises(UserError, match=r"has no checksum: it was not written by jaxtickets\Z"):
        load_portable(path)
    path.write_bytes(b"PK\x03\x04 not a ticket at all")
    with pytest.raises(UserError, match="is no safetensors file"):
        load_portable(path)
    save_portable(path, small(), {})
    with pytest.raises(UserError, match="holds no program, but 'jaxtickets ticket 1'"):
        stablehlo.load_program(path)


@pytest.mark.parametrize(
    ("leaves", "reason"),
    [
        ({"a/b": np.ones(2)}, "nested dicts with string keys without a slash"),
        ({"": np.ones(2)}, "nested dicts"),
        ({"b": [np.ones(2)]}, "nested dicts"),
        ({"b": {}}, "nested dicts"),
        ({"b": np.ones(2, "c8")}, "params/b is complex64: safetensors files hold no such numbers"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, leaves, reason):
    path = save_portable(tmp_path / "t", small(), {})
    with pytest.raises(ValueError, match=re.escape(reason)):
        save_portable(path, small(**leaves), {})
    same(load_portable(path)[0], small())
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_program_runs_without_the_net_for_any_batch(tmp_path):
    ticket = random_ticket(NET, SHAPE)
    path = stablehlo.save_program(tmp_path / "p", NET, ticket, SHAPE, ABOUT)
    program = stablehlo.load_program(path)
    assert program.provenance["density"] == 0.7
    images = examples(SHAPE, 5)
    expected = logits(NET, ticket, images)
    for apply, some in ((program.apply, images), (jax.jit(program.apply), images[:2])):
        found = apply(program.params, program.stats, some)
        close(np.asarray(found), expected[: len(some)])
    with pytest.raises(UserError, match="holds no ticket, but 'jaxtickets program 1'"):
        load_portable(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: it has changed since it was written"):
        stablehlo.load_program(path)


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x) / float(len(x))


def test_a_net_that_needs_the_batch_size_is_not_exported(tmp_path):
    ticket = random_ticket(Counting(), (3,))
    with pytest.raises(ValueError, match=r"Counting can't be exported with an open batch: .*\Z"):
        stablehlo.save_program(tmp_path / "p", Counting(), ticket, (3,))
    assert not list(tmp_path.iterdir())
