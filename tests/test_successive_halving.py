"""Races: who leaves when, what that takes, and that a run's rows are those of its trainings."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from commands import metrics, summary

from experiments.sa_frontier import halving_runs
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.successive_halving import Race, race

NAN = float("nan")
LOSSES = {
    "slow": [0.9, 0.5, 0.1, 0.0],
    "steady": [0.6, 0.4, 0.3, 0.3],
    "quick": [0.2, 0.35, 0.4, 0.4],
    "lost": [NAN, NAN, NAN, NAN],
    "middling": [0.5, 0.45, 0.5, 0.5],
}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((1,), Race("quick", 5)),
        ((3,), Race("slow", 15)),
        # after one look quick, middling and steady are left, whom the second and third train alone
        ((1, 3), Race("steady", 5 + 2 * 3)),
        ((1, 2, 4), Race("steady", 5 + 3 + 2 * 2)),
        # after two looks quick, steady and middling
        ((2, 3), Race("steady", 2 * 5 + 3)),
    ],
)
def test_the_worse_half_leaves_at_each_look(at, expected):
    assert race(LOSSES, at) == expected


def test_a_lost_training_wins_against_nobody():
    assert race({"lost": [NAN], "won": [9.0]}, (1,)).winner == "won"
    assert race({"lost": [NAN]}, (1,)) == Race("lost", 1)


def test_of_equals_the_first_wins():
    assert race({"a": [1.0], "b": [1.0]}, (1,)).winner == "a"


@pytest.mark.parametrize(
    ("losses", "at", "said"),
    [
        ({}, (1,), "needs contenders and evaluations"),
        ({"a": [1.0]}, (), "needs contenders and evaluations"),
        ({"a": [1.0]}, (2,), "a has 1 losses, 2 are needed"),
        ({"a": [1.0, 2.0]}, (2, 1), "increase"),
        ({"a": [1.0, 2.0]}, (0, 1), "1 or more"),
    ],
)
def test_a_race_that_can_not_be_run_is_refused(losses, at, said):
    with pytest.raises(ValueError, match=said):
        race(losses, at)


def test_looks_are_shares_of_a_training():
    problem = SimpleNamespace(steps=60, recipe=SimpleNamespace(every=4))
    assert halving_runs.looks_at((0.15, 0.35), problem) == [2, 5]
    assert halving_runs.looks_at(("0.01", "0.02"), problem) == [1]
    assert halving_runs.looks_at((), problem) == []
    with pytest.raises(UserError, match=r"--race=0\.4,0\.2: must rise$"):
        halving_runs.looks_at((0.4, 0.2), problem)


def test_the_winner_of_a_run_is_the_best_after_the_look_and_pays_for_all(smokes):
    folder = smokes("sa_frontier")[0]
    rows = summary(folder)
    found = [row for row in rows if row["method"] == "raced"]
    assert [(row["density"], row["seed"], row["budget"]) for row in found] == [
        ("0.1", "0", "8.0"),
        ("0.1", "1", "8.0"),
    ]
    contenders = {"granet", "annealed_fields", "gradual_edge_popup", "random_erk", "snip"}
    contenders |= {"policy_gradient_weights"}
    for row in found:
        mine = {r["method"]: r for r in rows if r["seed"] == row["seed"]}
        first = {
            seen["method"]: seen["loss"]
            for seen in reversed(metrics(folder))
            if seen["phase"].startswith("train-") and "step" in seen
            if str(seen["seed"]) == row["seed"]
        }
        assert row["winner"] == min(contenders, key=first.get)
        assert row["trained_accuracy"] == mine[row["winner"]]["trained_accuracy"]
        passes = sum(int(mine[name]["forward_passes"]) for name in contenders)
        # the five others train for an epoch, 31 batches of 32, forward and twice as much
        # backward; all six are looked at once, on 300 images
        assert int(row["forward_passes"]) == passes + 5 * 3 * 31 * 32 + 6 * 300


def test_contenders_of_each_budget_density_and_seed_race_apart(tmp_path):
    split = SimpleNamespace(labels=np.zeros(10))
    problem = SimpleNamespace(
        steps=4,
        recipe=SimpleNamespace(every=1, batch_size=2),
        dataset=SimpleNamespace(train=SimpleNamespace(labels=np.zeros(100)), validation=split),
    )
    rows, summary = [], []
    # losses at the first and at the second look, budgets, densities and seeds apart
    for method, budget, density, seed, losses in (
        ("searched", 1.0, 0.1, 0, (3.0, 1.0)),
        ("searched", 2.0, 0.1, 0, (1.0, 9.0)),
        ("random_erk", None, 0.1, 0, (2.0, 2.0)),
        ("searched", 1.0, 0.2, 0, (2.0, 0.5)),
        ("searched", 2.0, 0.2, 0, (2.5, 0.6)),
        ("random_erk", None, 0.2, 0, (2.0, 0.7)),
        ("searched", 1.0, 0.1, 1, (5.0, 5.0)),
        ("searched", 2.0, 0.1, 1, (0.0, 0.0)),
        ("random_erk", None, 0.1, 1, (4.0, 4.0)),
        ("dense", None, 1.0, 0, (0.0, 0.0)),
    ):
        name = {"method": method, "budget": budget, "density": density, "seed": seed}
        passes = int(1000 * (budget or 0))
        accuracy = 1 - losses[1] / 10
        summary.append({**name, "forward_passes": passes, "trained_accuracy": accuracy})
        summary[-1] |= {"search_seconds": 7.0} if budget else {}
        for look, loss in enumerate(losses):
            rows.append({"phase": "train-00", "step": look + 1, "loss": loss, **name})
        rows.append({"phase": "search", "step": 1, "loss": -1.0, **name})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = halving_runs.races(
        tmp_path, "train-", summary, ("searched", "random_erk"), problem, [1, 2]
    )
    winners = {(r["density"], r["seed"], r["budget"]): r["winner"] for r in found}
    assert winners == {
        (0.1, 0, 1.0): "random_erk",  # after one look one of two is left
        (0.1, 0, 2.0): "searched",
        (0.2, 0, 1.0): "searched",  # the first of equals
        (0.2, 0, 2.0): "random_erk",
        (0.1, 1, 1.0): "random_erk",
        (0.1, 1, 2.0): "searched",
    }
    by = {(r["density"], r["seed"], r["budget"]): r for r in found}
    # both train a step of two examples, the winner alone the second, which is its own; three looks
    assert by[0.1, 0, 2.0]["forward_passes"] == 2000 + 3 * 2 + 3 * 10
    assert by[0.1, 0, 2.0]["trained_accuracy"] == pytest.approx(0.1)
    assert all("search_seconds" not in row for row in found)
