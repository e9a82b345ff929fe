"""The pipeline of compression: its stages' files, what they hold, exact sharing, resume."""

import shutil

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.compression import files, sharing
from experiments.compression.files import HUFFMAN, STAGES
from experiments.compression.methods import ONE_SHOT
from experiments.compression.page import ordered, table
from experiments.compression.settings import CompressSettings
from experiments.harness import rows as records
from jaxtickets import masks
from jaxtickets.compress import surgeon
from jaxtickets.compress.weight_sharing import restore
from jaxtickets.io.compressed import load_compressed
from jaxtickets.io.tickets import load_ticket
from jaxtickets.types import Ticket

WEIGHTS = 784 * 30 + 30 * 20 + 20 * 10
DENSE = WEIGHTS + 30 + 20 + 10


@pytest.fixture(scope="module")
def folder(smokes):
    """A finished smoke run."""
    return smokes("compression")[0]


@pytest.fixture(scope="module")
def rows(folder):
    """Its summary, with numbers."""
    return records.read_summary(folder)


def of(rows, stage):
    return [row for row in rows if row["stage"] == stage]


def test_every_stage_has_a_row_for_each_net(rows):
    assert len(of(rows, "dense")) == 1
    for stage in (*STAGES,)[1:]:  # a net that is retrained after each cut has no stage of its cut
        assert [row["method"] for row in of(rows, stage)] == ["iterative_layer_obs", "granet"]


def test_bytes_are_those_of_the_files_and_fall_from_stage_to_stage(rows, folder):
    for row in rows:
        if row["stage"] == "dense":
            assert (row["bytes"], row["factor"], row["parameters"]) == (4 * DENSE, 1, DENSE)
            continue
        size = (folder / "files" / f"{row['ticket']}-{row['stage']}.jxt").stat().st_size
        parts = sum(row[f"bytes/{part}"] for part in files.PARTS)
        assert row["bytes"] == size == parts
        assert row["factor"] == pytest.approx(4 * DENSE / size, abs=1e-3)
    for before, after in (("pruned", "shared"), ("shared", "huffman"), ("huffman", "coded")):
        for one, next_one in zip(of(rows, before), of(rows, after), strict=True):
            assert next_one["bytes"] < one["bytes"]


def test_exact_counts_are_kept_and_removing_units_changes_no_answer(rows):
    for one, small in zip(of(rows, "pruned"), of(rows, "units_removed"), strict=True):
        assert one["kept"] == round(0.1 * WEIGHTS) >= small["kept"]
        assert one["parameters"] == DENSE >= small["parameters"]
        assert one["trained_accuracy"] == small["trained_accuracy"]


def test_a_file_holds_the_net_of_its_ticket_with_few_values(rows, folder):
    for row in of(rows, "coded"):
        _, read, provenance = load_compressed(folder / "files" / f"{row['ticket']}-coded.jxt")
        assert provenance["seed"] == row["seed"] and provenance["method"] == row["method"]
        ticket, _ = load_ticket(folder / "tickets" / row["ticket"])
        weights = [np.asarray(leaf) for leaf in jax.tree.leaves(ticket.params)]
        for leaf, small in zip(weights, jax.tree.leaves(read.params), strict=True):
            values = {*np.unique(small).tolist()} - {0.0}
            assert len(values) <= 8 and values <= {*np.unique(leaf).tolist()}


def test_training_moves_values_and_no_weight_to_another_cluster(rows, folder):
    for before, after in zip(of(rows, "shared"), of(rows, "values_trained"), strict=True):
        one, two = (load_ticket(folder / "tickets" / row["ticket"])[0] for row in (before, after))
        jax.tree.map(np.testing.assert_array_equal, one.mask, two.mask)
        first, last = (np.asarray(t.params["fc1"]["kernel"]) for t in (one, two))
        kept = np.asarray(one.mask["fc1"]["kernel"])
        pairs = {*zip(first[kept].tolist(), last[kept].tolist(), strict=True)}
        assert len(pairs) == len(np.unique(first[kept]))  # old value -> one new value
        assert (first[kept] != last[kept]).any()


def test_a_run_resumes_without_its_files_and_shared_nets(folder, cache, tmp_path):
    # as if it had been killed before them
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    for place in again.glob("tickets/*-shared8*"):
        shutil.rmtree(place)
    shutil.rmtree(again / "files")
    records.keep_metrics(again, lambda row: not row["phase"].startswith(("files-", "share-")))
    words = commands.command("compression", "--smoke", "--resume", f"--out={again}")
    done = commands.run([*words, f"--dense_store={folder.parent / 'dense'}"], cache)
    assert done.returncode == 0, done.stderr
    before, after = (
        [{k: v for k, v in row.items() if "milli" not in k and "speed" not in k} for row in found]
        for found in (commands.summary(folder), commands.summary(again))
    )
    assert before == after


# --- parts ---------------------------------------------------------------------------------------


@pytest.fixture
def ticket(mlp):
    draw = np.random.default_rng(0)
    mask = jax.tree.map(lambda p: jnp.asarray(draw.random(p.shape) < 0.6), mlp)
    return Ticket(masks.apply(mask, mlp), {}, mask, jnp.int32(0))


def test_what_is_shared_already_is_found_again_to_the_bit(ticket):
    few = sharing.restored(ticket, sharing.shared(ticket, 3, CompressSettings()))
    found = sharing.as_found(few)
    assert max(len(one.codebook) for one in found.values()) <= 3
    again = restore(found, few.mask, few.params)
    jax.tree.map(np.testing.assert_array_equal, again, few.params)
    for leaf in jax.tree.leaves(few.params):  # float16 holds them
        np.testing.assert_array_equal(np.asarray(leaf, np.float16).astype("f"), leaf)


def test_a_file_with_another_net_is_noticed(ticket):
    files.check_same("net.jxt", ticket, ticket)
    path = masks.paths(ticket.params)[0]
    (leaf,) = masks.pick(ticket.params, (path,))
    other = ticket._replace(params=masks.put(ticket.params, (path,), [leaf + 1]))
    with pytest.raises(RuntimeError, match=r"net.jxt holds another net"):
        files.check_same("net.jxt", other, ticket)


def test_every_surgeon_of_nets_of_images_is_compared():
    assert {*surgeon.SURGEONS} - {"obs"} <= {*ONE_SHOT}


def test_the_table_and_its_order():
    row = {"method": "granet", "density": 0.1, "levels": None, "seed": 0, "seconds": 1.0}
    row |= {"trained_accuracy": 0.975, "validation_accuracy": 0.5, "bytes": 250, "factor": 4.0}
    shared = row | {"stage": "huffman", "levels": 8, "milliseconds_1": 0.1, "speed_up_1": 2.0}
    shared |= {"milliseconds_128": 1.0, "speed_up_128": 0.5}
    few, many = shared | {"levels": 4}, shared
    dense = row | {"stage": "dense", "method": "dense", "density": 1.0}
    made = ordered([dense, few, row | {"stage": "pruned"}, many])
    assert [(one["stage"], one["levels"]) for one in made] == [
        *(("dense", None), ("pruned", None), ("huffman", 8), ("huffman", 4))
    ]
    lines = table(made).splitlines()
    assert lines[0].split("  ")[0] == "stage" and len(lines) == 5
    words = ["huffman", "granet", "10", "8", "1", "97.50", "50.00", "250", "4.0"]
    assert lines[3].split()[:9] == words
    assert "0.1 (2.00x), 1 (0.50x)" in lines[3]


def test_deep_compressions_own_codes_are_its_papers():
    assert STAGES["huffman"].form == HUFFMAN == ("relative", "huffman")
