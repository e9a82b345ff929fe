"""The store of dense nets: what is reused, what isn't, and what becomes of damage."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxtickets
from experiments.harness import dense_store, source
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.problem import build, on_device
from experiments.harness.seeds import seed
from experiments.harness.session import Session
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import runs
from jaxtickets.io.errors import UserError

NET = NetSettings(model="lenet300_100")
TRAIN = TrainSettings(iterations=4, look_every=4, batch_size=500)
ONE = runs.axis("map", 1, jax.local_devices()[:1])  # each compiles for itself


class Bench:
    """Counts trainings; `nets(numbers, ...)` asks the store for seeds."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.trained = folder, []
        self.store = StoreSettings(str(folder / "store"))
        train = dense_store.train_entries

        def counted(*arguments):
            self.trained += [entry.name["seed"] for entry in arguments[2]]
            return train(*arguments)

        monkeypatch.setattr(dense_store, "train_entries", counted)

    def nets(self, numbers, net=NET, train=TRAIN, run="run"):
        self.trained.clear()
        (self.folder / run).mkdir(exist_ok=True)
        problem = build(net, train, "", False)
        seeds = [seed(problem, number) for number in numbers]
        session = Session(self.folder / run, problem, ONE, on_device(problem.dataset), seeds, 60.0)
        return dense_nets(session, train, self.store)

    def places(self):
        return sorted((self.folder / "store" / "tickets").iterdir())


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def test_stored_nets_are_the_trained_ones_and_only_new_seeds_are_trained(bench, capsys):
    first = bench.nets([0, 1])
    assert bench.trained == [0, 1]
    again = bench.nets([1, 2, 0], run="other")
    assert bench.trained == [2] and "2 of 3 dense nets are loaded from" in capsys.readouterr().out
    for old, new in ((0, 2), (1, 0)):
        np.testing.assert_array_equal(
            first.params["fc1"]["kernel"][old], again.params["fc1"]["kernel"][new]
        )
        assert first.summary[old] == again.summary[new]
    assert [row["seed"] for row in again.summary] == [1, 2, 0]
    assert len(bench.places()) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"train": dataclasses.replace(TRAIN, learning_rate=0.01)},
        {"net": dataclasses.replace(NET, use_bias=False)},
    ],
)
def test_another_training_or_net_is_trained_anew(bench, change):
    bench.nets([0])
    bench.nets([0], **change)
    assert bench.trained == [0]


def test_what_is_pruned_is_the_runs_own_affair(bench):
    bench.nets([0])
    other = bench.nets([0], net=dataclasses.replace(NET, prune_output=False))
    assert not bench.trained
    assert "kept/out/kernel" not in other.summary[0]


def test_a_damaged_net_is_trained_again(bench, capsys):
    first = bench.nets([0])
    file = max(
        (f for f in bench.places()[0].rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = bench.nets([0], run="other")
    assert bench.trained == [0] and "the net is trained again" in capsys.readouterr().out
    np.testing.assert_array_equal(first.params["out"]["kernel"], again.params["out"]["kernel"])


def test_a_run_that_stored_a_part_of_its_nets_goes_on(bench):
    whole = bench.nets([0, 1])
    shutil.rmtree(bench.places()[0])  # as if killed between the two
    again = bench.nets([0, 1])
    assert len(bench.trained) == 1
    np.testing.assert_array_equal(whole.params["fc1"]["kernel"], again.params["fc1"]["kernel"])


def test_a_store_that_cannot_be_written_is_refused_before_training(bench, monkeypatch):
    says = r"--dense_store=.*/store: dense nets can't be stored there: {}: choose another folder$"
    store = bench.folder / "store"
    store.touch()
    with pytest.raises(UserError, match=says.format("Not a directory")):
        bench.nets([0])
    store.unlink()

    def refuse(**options):
        raise PermissionError(13, "Permission denied", str(options["dir"]))

    monkeypatch.setattr(dense_store.tempfile, "TemporaryFile", refuse)  # as in a read-only folder
    with pytest.raises(UserError, match=says.format("Permission denied")):
        bench.nets([0])
    assert not bench.trained


def test_a_shorter_training_set_is_the_first_images_of_the_whole_one():
    whole, short = (
        build(NetSettings(model="lenet300_100", train_images=size), TRAIN, "", False).dataset
        for size in (0, 500)
    )
    np.testing.assert_array_equal(short.train.images, whole.train.images[:500])
    np.testing.assert_array_equal(short.train.labels, whole.train.labels[:500])
    assert len(whole.train.labels) == 3500
    assert (np.bincount(short.train.labels) == 50).all()
    np.testing.assert_array_equal(short.test.images, whole.test.images)


# --- the code that decides a training's numbers ---------------------------------------------------


def test_words_do_not_change_a_codes_digest_and_code_does():
    code = 'def f(x):\n    """Words."""\n    return x + 1\n\nN = 2\n"""More."""\n'
    words = "# a comment\ndef f(x):\n    return (x + 1)\n\nN = 2\n"
    assert source.digest([("a.py", code)]) == source.digest([("a.py", words)])
    for other in (code.replace("+", "-"), code.replace("2", "3")):
        assert source.digest([("a.py", code)]) != source.digest([("a.py", other)])
    assert source.digest([("a.py", code)]) != source.digest([("b.py", code)])


def test_all_that_a_training_imports_is_in_its_codes_digest():
    root = Path(jaxtickets.__file__).parent
    code = "import sys, jaxtickets.training as t, jaxtickets.penalties as p; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root.parent
    ).stdout.split()
    mine = {name.split(".")[1] for name in names if name.startswith("jaxtickets.")}
    assert mine <= {name.partition("/")[0].removesuffix(".py") for name in source.TRAINING}
