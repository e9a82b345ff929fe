"""Tables and figures of methods side by side: what is a method, and what a check of it."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxtickets
from jaxtickets import runs
from jaxtickets.drivers import comparison, once, parts
from jaxtickets.drivers.comparison import Entry
from jaxtickets.drivers.training_loop import Start
from jaxtickets.figures import methods
from jaxtickets.io import checkpoints, rows

ROOT = Path(jaxtickets.__file__).parent


def row(method, density, trained, kept, **more):
    layers = {f"kept/{layer}/kernel": n for layer, n in zip(("fc1", "out"), kept, strict=True)}
    accuracies = {"untrained_accuracy": 0.1, "trained_accuracy": trained}
    return {"method": method, **more, "density": density, **accuracies, **layers}


PLAIN = [row("dense", 1.0, 0.9, (10, 4)), row("snip", 0.5, 0.8, (5, 2))]
CHECKED = [
    *PLAIN,
    row("snip", 0.5, 0.6, (7, 0), check="inverted"),
    row("snip", 0.5, 0.7, (6, 1), check="inverted"),
    row("inverted_grasp", 0.5, 0.5, (5, 2)),
]


def test_a_table_has_a_column_of_checks_where_there_are_any():
    plain, checked = (comparison.table(rows).splitlines() for rows in (PLAIN, CHECKED))
    assert " ".join(plain[0].split()) == "method density n untrained % trained % fc1 out"
    assert plain[2].split() == ["snip", "0.5", "1", "10.00", "80.00", "5", "2"]
    assert checked[0].split()[:4] == ["method", "check", "density", "n"]
    assert checked[2].split()[:3] == ["snip", "0.5", "1"]
    # mean and deviation of 60 and 70: 5 * sqrt(2) = 7.07; of 0 and 1 kept: 0.5, which rounds to 0
    inverted = ["snip", "inverted", "0.5", "2", "10.00", "±", "0.00", "65.00", "±", "7.07"]
    assert checked[3].split() == [*inverted, "6", "0"]
    assert checked[4].split()[:2] == ["inverted_grasp", "0.5"]


def test_a_table_says_how_searches_and_nets_do_on_the_validation_data():
    losses = {"search_loss": 0.01, "search_validation_loss": 0.25}
    both = [row("ticket", 0.5, 0.8, (5, 2), validation_accuracy=v, **losses) for v in (0.7, 0.8)]
    plain = {"validation_accuracy": 0.5, "search_loss": None}  # as a table read again has it
    lines = comparison.table([*both, row("snip", 0.5, 0.6, (5, 2), **plain)]).splitlines()
    head = "untrained % trained % validation % search loss on validation fc1 out"
    assert " ".join(lines[0].split()) == f"method density n {head}"
    found = [part.strip() for part in lines[1].split("  ") if part.strip()]
    assert found[3:7] == ["10.00 ± 0.00", "80.00 ± 0.00", "75.00 ± 7.07", "0.010 ± 0.000"]
    assert found[7:] == ["0.250 ± 0.000", "5", "2"]
    assert lines[2].split() == ["snip", "0.5", "1", "10.00", "60.00", "50.00", "5", "2"]


def test_a_layer_lost_in_any_seed_is_named_with_its_check():
    assert comparison.lost(PLAIN) == []
    line = "a layer is lost: snip (inverted) at 0.5 keeps nothing in out/kernel"
    assert comparison.lost(CHECKED) == [line]
    assert comparison.table(CHECKED).splitlines()[-1] == line


def test_a_spread_is_in_per_cent_unless_asked_otherwise():
    assert comparison.spread([0.6, 0.7]) == "65.00 ± 7.07"
    assert comparison.spread([0.6]) == "60.00"
    assert comparison.spread([10, 14], 1, 0) == "12 ± 3"


def test_figures_order_methods_with_their_checks_and_take_no_name_apart():
    rows = [row("obd", 0.5, 0.5, (5, 2), check="reinit"), *reversed(CHECKED)]
    found = [("snip", "inverted"), ("snip", ""), ("dense", ""), ("obd", "reinit")]
    assert methods.kinds(rows) == [*found, ("inverted_grasp", "")]
    assert methods.label("snip") == "SNIP" and methods.label("snip", "reinit") == "SNIP, reinit"
    assert methods.label("inverted_grasp") == "inverted GraSP"
    assert methods.label("magnitude_same_sign", "shuffled") == "magnitude same sign, shuffled"


def test_rooms_of_the_host_import_downwards():
    below = {"io": ("drivers", "figures"), "figures": ("drivers",), "drivers": ("figures",)}
    for room, others in below.items():
        files = list((ROOT / room).glob("*.py"))
        assert len(files) > 3
        for file in files:
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                names = [alias.name for alias in getattr(node, "names", ())]
                module = getattr(node, "module", None) or ""
                imported = [module, *names, *(f"{module}.{name}" for name in names)]
                for other in others:
                    assert not any(name.startswith(f"jaxtickets.{other}") for name in imported), (
                        file
                    )


def test_a_paired_difference_has_students_interval():
    """By hand: differences 1, 2, 3; mean 2, deviation 1, and t(0.975, 2) = 4.3027."""
    ours, theirs = {0: 1.5, 1: 4.0, 2: 3.0, 9: 8.0}, {0: 0.5, 1: 2.0, 2: 0.0, 7: 1.0}
    mean, half = comparison.paired(ours, theirs)
    assert abs(mean - 2) < 1e-12
    assert abs(half - 4.302653 / 3**0.5) < 1e-5
    assert comparison.paired({3: 1.0}, {3: 0.0}) == (1.0, float("inf"))


# --- parts ---------------------------------------------------------------------------------------


class Parts:
    """Eight trainings in parts of a turn each; every one is noted, and leaves a checkpoint."""

    def __init__(self, folder, devices, monkeypatch):
        self.folder, self.devices, self.trained = folder, devices, []
        start = Start(0, 0, {"w": np.zeros(3)}, {}, {"w": np.ones(3, bool)})
        self.entries = [Entry({"seed": number}, start) for number in range(8)]
        monkeypatch.setattr(comparison, "train_entries", self.train)
        monkeypatch.setattr(once, "train_entries", self.train)
        monkeypatch.setattr(once, "save_entry", self.save)
        monkeypatch.setattr(once.runs, "take", lambda *arguments: ({}, {}))
        monkeypatch.setattr(parts, "BYTES", 1)

    def train(self, folder, phase, problem, axis, entries, data, every):
        mine = [entry.name["seed"] for entry in entries]
        place = folder / "checkpoints" / phase
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
        rest = SimpleNamespace(steps=1), runs.axis("map", 1, self.devices[:devices])
        if kind == "once":
            entries = {f"ticket-{i}": entry for i, entry in enumerate(self.entries)}
            given = self.folder, self.folder, "train", *rest, entries, None, 60.0
            return list(once.train(*given).values())
        return comparison.train_in_parts(self.folder, "train", *rest, self.entries, None, 60.0)


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
