"""Tables of structured pruning: all methods, and the paired differences between trainings."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.structured_runs import BATCHES, COLUMNS, SPEED_UPS, Row
from jaxtickets.recipes.structured import AFTERS

OUTCOMES = (
    *(tables.accuracy(when) for when in ("dense", "cut", "trained")),
    tables.VALIDATION,
    *tables.SEARCH,
)
"""The accuracies of the dense, the cut and the trained net, and the results of a search."""


def grouped(summary: Sequence[Row]) -> dict[tuple[str, float, str], list[Row]]:
    """(method, share, training after the cut) -> rows."""
    groups: dict[tuple[str, float, str], list[Row]] = {}
    for row in summary:
        groups.setdefault((row["method"], row["rate"], row["after"] or ""), []).append(row)
    return groups


def table(summary: Sequence[Row]) -> str:
    """A table with mean ± sample standard deviation over seeds of each method, share and training.

    The losses of searches have columns if there were searches.
    """
    layers = [name for name in summary[0] if name.startswith("units/")]
    there = tables.present(OUTCOMES, summary)
    head = ["method", "kept", "after", "n", *(column.head for column in there), "steps"]
    head += ["parameters", "MFLOP", "kB", *(f"ms of {b} (faster)" for b in BATCHES), "units"]
    lines = [head]
    for (method, rate, after), members in grouped(summary).items():
        mean = {
            name: float(np.mean([row[name] for row in members]))
            for name in (*COLUMNS.values(), "train_steps", *layers, *SPEED_UPS)
        }
        speed = [f"{mean[f'milliseconds_{b}']:.3g} ({mean[f'speed_up_{b}']:.2f}x)" for b in BATCHES]
        lines.append(
            [
                *(method, f"{rate:g}", after, str(len(members)), *tables.cells(there, members)),
                *(f"{mean['train_steps']:.0f}", f"{mean['parameters']:.0f}"),
                f"{2 * mean['multiply_adds'] / 1e6:.3f}",
                f"{mean['bytes_on_disk'] / 1e3:.0f}",
                *(*speed, "-".join(f"{mean[name]:.0f}" for name in layers)),
            ]
        )
    return tables.aligned(lines)


def worth(summary: Sequence[Row]) -> str:
    """A table of paired differences in trained accuracy over seeds, in percentage points.

    It compares nets that keep weights of the dense net with nets of the same widths trained from
    scratch, and each method with random units after the same training. The number after ± is half
    the width of the 95 % interval.
    """
    groups = grouped([row for row in summary if row["method"] != "dense"])
    lines = [["trained accuracy", "kept", "points", "n"]]
    for (method, rate, after), ours in groups.items():
        against = {
            f"{method}: {after} - {other}": (method, rate, other)
            for other in AFTERS
            if AFTERS[after].inherits and not AFTERS[other].inherits
        }
        against[f"{after}: {method} - random"] = ("random", rate, after)
        for name, key in against.items():
            theirs = groups.get(key, ours)
            if {row["ticket"] for row in theirs} == {row["ticket"] for row in ours}:
                continue  # there is no rival, or both are the same nets
            both = [{r["seed"]: r["trained_accuracy"] for r in side} for side in (ours, theirs)]
            lines.append([name, f"{rate:g}", tables.difference(*both), str(len(ours))])
    return tables.aligned(lines)
