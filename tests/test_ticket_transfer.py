"""The ticket transfer experiment: what is trained on each target, and what is compared."""

import itertools

import pytest
from commands import summary

from experiments.ticket_transfer import page


def test_every_ticket_and_control_is_trained_on_every_target(smokes):
    made = summary(smokes("ticket_transfer")[0])
    labels = ["mnist5k/adam", "mnist5k:second_images/adam"]
    assert page.labels(made) == labels
    alone = [(method, target) for method in ("random", *page.ACROSS) for target in labels]
    expected = [("dense", "", target) for target in labels]
    expected += [(method, target, target) for method, target in alone]
    expected += itertools.product(("ticket", "shuffled"), labels, labels)
    found = [(row["method"], row["source"], row["target"], row["seed"]) for row in made]
    assert sorted(found) == sorted((*row, seed) for row in expected for seed in "01")
    kept = {
        (row["kept/fc1/kernel"], row["kept/fc2/kernel"]) for row in made if row["method"] != "dense"
    }
    assert kept == {("11760", "300")}  # half of 784 * 30 and of 30 * 20; the output layer is whole
    assert not any(name == "kept/out/kernel" for name in made[0])


def rows(target, method, source, *accuracies):
    return [
        {"target": target, "method": method, "source": source, "seed": i, "trained_accuracy": value}
        for i, value in enumerate(accuracies)
    ]


MADE = [
    *rows("a", "dense", None, 0.95, 0.97),
    *rows("a", "random", "a", 0.80, 0.82),
    *rows("a", "ticket", "a", 0.90, 0.94),
    *rows("a", "shuffled", "a", 0.85, 0.85),
    *rows("a", "ticket", "b", 0.88, 0.88),
    *rows("a", "shuffled", "b", 0.86, 0.84),
    *rows("a", "naive", "a", 0.81, 0.81),
    *rows("a", "permuted", "a", 0.83, 0.83),
    *rows("b", "random", "b", 0.5, 0.5),
    *rows("b", "ticket", "b", 0.6, 0.6),
]
T = 12.706  # Student's t for 95 % at one degree of freedom: half an interval is t s / sqrt(2)


@pytest.mark.parametrize(
    ("method", "source", "cells"),
    [
        # differences of .10 and .12: s / sqrt(2) = .01
        ("ticket", "own", ["92.00 ± 2.83", f"+11.00 ± {T:.2f}", "", f"+7.00 ± {2 * T:.2f}"]),
        # of .08 and .06; of -.02 and -.06; of .02 and .04
        (
            "ticket",
            "b",
            ["88.00 ± 0.00", f"+7.00 ± {T:.2f}", f"-4.00 ± {2 * T:.2f}", f"+3.00 ± {T:.2f}"],
        ),
        (
            "permuted",
            "",
            ["83.00 ± 0.00", f"+2.00 ± {T:.2f}", f"-9.00 ± {2 * T:.2f}", "+2.00 ± 0.00"],
        ),
        ("random", "", ["81.00 ± 1.41", "", f"-11.00 ± {T:.2f}", ""]),
    ],
)
def test_differences_of_the_table_worked_by_hand(method, source, cells):
    lines = [line.split("  ") for line in page.table(MADE).splitlines()]
    words = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    expected = [cell for cell in ("a", method, source, "2", *cells) if cell]
    assert expected in words
