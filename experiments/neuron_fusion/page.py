"""The table and figure of the page: a row for each rule, amount and retraining."""

from collections.abc import Sequence

import numpy as np

from experiments.harness.tables import VALIDATION, Column, Row, accuracy, aligned, cells, present

RECORDS = ("summary.csv",)
FIGURE = "accuracies"
COLUMNS = (
    accuracy("trained", "test %"),
    VALIDATION,
    Column("units left %", "units_left", 100, 1),
    Column("parameters left %", "parameters_left", 100, 1),
    Column("multiply-adds left %", "multiply_adds_left", 100, 1),
)
Key = tuple[str, str, str, float, str]


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds. `how many` is the amount as it was asked for."""
    there = present(COLUMNS, summary)
    sparse = any(row["before_density"] != 1 for row in summary)
    layers = [name for name in summary[0] if name.startswith("units/")]
    head = ["which", "how", "how many", *["density before"] * sparse, "retrained", "n"]
    lines = [[*head, *(column.head for column in there), "units"]]
    for (which, how, asked, before, retrain), members in grouped(summary).items():
        units = [f"{np.mean([row[name] for row in members]):.0f}" for name in layers]
        named = [which, how, asked, *[f"{before:g}"] * sparse, retrain, str(len(members))]
        lines.append([*named, *cells(there, members), "-".join(units)])
    return aligned(lines)


def grouped(summary: Sequence[Row]) -> dict[Key, list[Row]]:
    """(which, how, how many, density before, retraining) -> rows."""
    groups: dict[Key, list[Row]] = {}
    for row in summary:
        names = (str(row[name] or "") for name in ("which", "how", "asked"))
        which, how, asked = names
        key = which, how, asked, float(row["before_density"]), str(row["retrain"] or "")
        groups.setdefault(key, []).append(row)
    return groups
