"""Methods side by side: what is a method, and what a check of it; trainings in parts."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.harness import (
    cached_trainings,
    memory_batches,
    method_figures,
    rows,
    trained_masks,
)
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start
from jaxtickets import runs
from jaxtickets.io import checkpoints

CHECKED = [
    *({"method": method} for method in ("dense", "snip")),
    *[{"method": "snip", "check": "inverted"}] * 2,
    {"method": "inverted_grasp"},
]


def test_figures_order_methods_with_their_checks_and_take_no_name_apart():
    rows = [{"method": "obd", "check": "reinit"}, *reversed(CHECKED)]
    found = [("snip", "inverted"), ("snip", ""), ("dense", ""), ("obd", "reinit")]
    assert method_figures.kinds(rows) == [*found, ("inverted_grasp", "")]
    assert (
        method_figures.label("snip") == "SNIP"
        and method_figures.label("snip", "reinit") == "SNIP, reinit"
    )
    assert method_figures.label("inverted_grasp") == "inverted GraSP"
    assert (
        method_figures.label("magnitude_same_sign", "shuffled") == "magnitude same sign, shuffled"
    )


# --- parts ---------------------------------------------------------------------------------------


class Parts:
    """Eight trainings in parts of a turn each; every one is noted, and leaves a checkpoint."""

    def __init__(self, folder, devices, monkeypatch):
        self.folder, self.devices, self.trained = folder, devices, []
        start = Start(0, 0, {"w": np.zeros(3)}, {}, {"w": np.ones(3, bool)})
        self.entries = [Entry({"seed": number}, start) for number in range(8)]
        monkeypatch.setattr(trained_masks, "train_entries", self.train)
        monkeypatch.setattr(cached_trainings, "train_entries", self.train)
        monkeypatch.setattr(cached_trainings, "save_entry", self.save)
        monkeypatch.setattr(cached_trainings.runs, "take", lambda *arguments: ({}, {}))
        monkeypatch.setattr(memory_batches, "BYTES", 1)

    def train(self, session, phase, entries):
        mine = [entry.name["seed"] for entry in entries]
        place = session.folder / "checkpoints" / phase
        state = np.array(mine, "f")
        found = checkpoints.restore(place, state)
        self.begun.append((phase, found is not None))
        checkpoints.save(place, 1, state)
        if len(self.begun) > self.most:
            raise InterruptedError
        self.trained += mine
        ends = SimpleNamespace(state=SimpleNamespace(params={}, stats={}))
        return ends, [{**entry.name, "accuracy": entry.name["seed"] / 8} for entry in entries]

    def save(self, folder, problem, entry, step, place):
        assert place == f"ticket-{entry.name['seed']}"

    def run(self, kind, devices, most=99):
        """The rows; killed as part number `most` has its first checkpoint."""
        self.begun, self.most = [], most
        session = Session(
            folder=self.folder,
            problem=SimpleNamespace(steps=1),
            axis=runs.axis("map", 1, self.devices[:devices]),
            data=None,
            seeds=[],
            checkpoint_seconds=60.0,
        )
        if kind == "once":
            entries = {f"ticket-{i}": entry for i, entry in enumerate(self.entries)}
            return list(cached_trainings.train(session, self.folder, "train", entries).values())
        return trained_masks.train_in_parts(session, "train", self.entries)


@pytest.mark.parametrize("kind", ["once", "comparison"])
@pytest.mark.parametrize(("first", "then"), [(2, 4), (4, 2), (2, 3), (2, 2)])
def test_a_run_goes_on_with_another_number_of_devices(
    kind, first, then, tmp_path, cpus, monkeypatch
):
    bench = Parts(tmp_path, cpus, monkeypatch)
    with pytest.raises(InterruptedError):
        bench.run(kind, first, most=1)
    assert bench.trained == list(range(first))
    made = bench.run(kind, then)
    assert made == [{"seed": number, "accuracy": number / 8} for number in range(8)]
    assert bench.trained == list(range(8))  # each once
    # what had begun is gone on with if it is of the same trainings, else anew
    assert bench.begun[0] == ("train-01", first == then)
    assert bench.run(kind, 1) == made and not bench.begun
    kept = [row["seed"] for row in rows.read_metrics(tmp_path) if row["phase"].endswith("-rows")]
    assert kept == list(range(8)) and not list((tmp_path / "checkpoints").iterdir())


def test_parts_of_a_phase_are_told_from_those_of_others(tmp_path, cpus, monkeypatch):
    bench = Parts(tmp_path, cpus, monkeypatch)
    rows.append_metrics(tmp_path, {"phase": "train-00-00-rows", "seed": 7})
    rows.append_metrics(tmp_path, {"phase": "retrain-00-rows", "seed": 7})
    assert [row["seed"] for row in bench.run("comparison", 4)] == list(range(8))
    assert [name for name, _ in bench.begun] == ["train-00", "train-01"]
