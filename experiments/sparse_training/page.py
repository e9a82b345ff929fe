"""The result page of sparse training: each method's net at each density, its mask, its cost."""

from collections.abc import Sequence

import numpy as np

from experiments.harness.tables import (
    Column,
    Row,
    accuracy,
    aligned,
    cells,
    difference_range,
    grouped,
    kept_layers,
    lost,
    present,
)

RECORDS = ("summary.csv",)
FIGURE = "accuracies"
COLUMNS = (
    accuracy("trained", "test %"),
    Column("rewound %", "rewound_accuracy"),
    Column("validation %", "validation_accuracy"),
    Column("ever kept %", "explored", 100, 1),
    Column("churn", "churn", 1, 2),
    Column("cost, zeros skipped", "sparse_cost", 1, 3),
    Column("not skipped", "dense_cost", 1, 2),
)


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds of each density and method.

    `rewound %` is the test accuracy of the last mask, trained alone from the first weights. `churn`
    is how many weights were grown in all, in masks of the last size. Costs are in dense trainings.
    """
    again = {
        (row["method"], row["density"], row["seed"]): row["trained_accuracy"]
        for row in summary
        if row.get("check")
    }
    own = [
        {**row, "rewound_accuracy": again.get((row["method"], row["density"], row["seed"]))}
        for row in summary
        if not row.get("check")
    ]
    there, layers = present(COLUMNS, own), kept_layers(own[0])
    head = ["method", "density", "n", *(column.head for column in there)]
    head += [name.removeprefix("kept/").removesuffix("/kernel") for name in layers]
    lines = [head]
    groups = grouped(own)
    for method, _, density in sorted(groups, key=lambda key: -key[2]):
        members = groups[method, "", density]
        left = [f"{np.mean([row[name] for row in members]):.0f}" for name in layers]
        lines.append([method, f"{density:g}", str(len(members)), *cells(there, members), *left])
    return "\n".join([aligned(lines), *lost(own), *_gains(own)])


def _gains(own: Sequence[Row]) -> list[str]:
    """What an inner optimiser adds to a method's test accuracy, in points, paired by seed."""
    of: dict[tuple[str, float], dict[int, float]] = {}
    for row in own:
        runs = of.setdefault((row["method"], row["density"]), {})
        runs[row["seed"]] = row["trained_accuracy"]
    found = []
    for method, density in sorted(of, key=lambda key: (key[0], -key[1])):
        base = of.get((method.partition("+")[0], density))
        if "+" in method and base:
            found.append(f"{method} at {density:g}: {difference_range(of[method, density], base)}")
    head = "with and without, differences in points, paired by seed, with 95 % intervals:"
    return ["", head, *found] if found else []
