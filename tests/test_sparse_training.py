"""The comparison of dynamic methods: counts, controls, tickets, costs, kill and resume."""

import commands
import numpy as np
import pytest

from experiments.sparse_training.page import table
from jaxtickets import masks
from jaxtickets.io.tickets import load_ticket

SIZES = {"fc1/kernel": 784 * 30, "fc2/kernel": 30 * 20, "out/kernel": 20 * 10}
TOTAL = sum(SIZES.values())


@pytest.fixture(scope="module")
def rows(smokes):
    """The summary of a finished smoke run."""
    return commands.summary(smokes("sparse_training")[0])


def of(rows, **fields):
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def test_every_net_ends_with_the_count_asked_for(rows):
    for row in rows:
        kept = sum(int(row[f"kept/{path}"]) for path in SIZES)
        density = float(row["density"])
        assert kept == round(density * TOTAL)
    assert {row["density"] for row in of(rows, method="dense")} == {"1.0"}


def test_a_static_mask_alone_from_the_first_weights_is_its_own_sparse_training(rows):
    (mine, again) = of(rows, method="static", density="0.1", seed="0")
    assert (mine["check"], again["check"]) == ("", "rewound")
    # one was trained by sparse products, the other by dense ones
    accuracies = [float(row["trained_accuracy"]) for row in (mine, again)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.01)
    assert float(mine["churn"]) == 0 and float(mine["explored"]) == pytest.approx(0.1, abs=1e-5)


def test_costs_and_exploration_are_those_of_the_masks(rows):
    (dense,) = of(rows, method="dense", seed="0")
    assert float(dense["sparse_cost"]) == float(dense["dense_cost"]) == 1
    (static,) = of(rows, method="static", check="", density="0.2", seed="1")
    assert float(static["sparse_cost"]) == pytest.approx(0.2, abs=1e-4)
    (rigl,) = of(rows, method="rigl+ham", check="", density="0.2", seed="1")
    moves, steps = 8, 56
    assert float(rigl["dense_cost"]) == pytest.approx(1 + moves / steps, abs=1e-5)
    extra = moves * (2 * 0.2 + 1) / (3 * steps)
    assert float(rigl["sparse_cost"]) == pytest.approx(0.2 + extra, abs=1e-3)
    assert float(rigl["explored"]) > 0.2 and float(rigl["churn"]) > 0


def test_a_moving_mask_is_a_ticket(rows, smokes):
    folder, _ = smokes("sparse_training")
    ticket, provenance = load_ticket(folder / "tickets" / "granet-density0.1-seed1")
    assert int(masks.count(ticket.mask, tuple(SIZES))) == round(0.1 * TOTAL)
    assert int(ticket.rewind_step) == 0 and provenance["method"] == "granet"
    kernel = np.asarray(ticket.params["fc1"]["kernel"])
    assert np.all(kernel != 0), "a ticket has its first weights, unmasked"


def test_metrics_hold_counts_exploration_and_growth(smokes):
    folder, _ = smokes("sparse_training")
    found = [row for row in commands.metrics(folder) if row["phase"] == "train-granet"]
    mine = [row for row in found if (row["density"], row["seed"]) == (0.1, 0)]
    kept = [sum(row[f"kept/{path}"] for path in SIZES) for row in mine]
    assert kept == sorted(kept, reverse=True) and kept[-1] == round(0.1 * TOTAL)
    for field in ("explored", "grown"):
        values = [row[field] for row in mine]
        assert values == sorted(values) and values[0] > 0


def test_a_killed_run_resumes_to_the_numbers_that_the_method_has_beside_others(
    rows, cache, tmp_path
):
    killed = tmp_path / "killed"
    words = commands.command("sparse_training", "--smoke", "--methods=granet", f"--out={killed}")
    commands.kill_and_resume(words, killed, ("train-granet",), cache)
    assert commands.summary(killed) == of(rows, method="granet")


def test_the_table_ends_with_what_an_inner_optimiser_adds():
    def row(method, seed, accuracy):
        own = {"method": method, "check": "", "density": 0.1, "seed": seed}
        return {**own, "trained_accuracy": accuracy, "kept/a/kernel": 7}

    both = [
        row("set", 0, 0.5),
        row("set", 1, 0.7),
        row("set+ham", 0, 0.52),
        row("set+ham", 1, 0.72),
    ]
    last = table(both).splitlines()[-1]
    assert last == "set+ham at 0.1: +2.00 (+2.00 to +2.00)"


def test_the_table_has_a_row_a_method_and_density_and_its_rewound_accuracy():
    def row(check, seed, accuracy):
        own = {"method": "set", "check": check, "density": 0.1, "seed": seed}
        return {**own, "trained_accuracy": accuracy, "kept/a/kernel": 7}

    lines = table([row("", 0, 0.5), row("", 1, 0.7), row("rewound", 0, 0.8), row("rewound", 1, 1)])
    head, line = lines.splitlines()
    assert head.split()[:7] == ["method", "density", "n", "test", "%", "rewound", "%"]
    assert line.split()[:9] == ["set", "0.1", "2", "60.00", "±", "14.14", "90.00", "±", "14.14"]
