"""The table of the page: each variant's tickets, and their difference from GraNet's."""

from collections.abc import Sequence

from experiments.harness.sparse_runs import GRANET
from experiments.harness.tables import (
    Column,
    Row,
    accuracy,
    aligned,
    cells,
    difference_range,
    grouped,
    lost,
    present,
)

RECORDS = ("summary.csv",)
FIGURE = "accuracies"
COLUMNS = (
    accuracy("trained", "test %"),
    Column("validation %", "validation_accuracy"),
    Column("cost", "dense_trainings", 1, 3),
    Column("seconds", "search_seconds", 1, 1),
)


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds; differences are paired, with 95 % intervals.

    `less granet` is the difference of the test accuracies of the rewound and trained masks, in
    points. `cost` is that of the search, in dense trainings.
    """
    there, groups = present(COLUMNS, summary), grouped(summary)
    head = ["search", "density", "n", *(column.head for column in there), "less granet (95 %)"]
    lines = [head]
    for method, check, density in sorted(groups, key=lambda key: -key[2]):
        members = groups[method, check, density]
        base = groups.get((GRANET, check, density))
        lines.append(
            [
                method,
                f"{density:g}",
                str(len(members)),
                *cells(there, members),
                difference(members, base) if base and method != GRANET else "",
            ]
        )
    return "\n".join([aligned(lines), *lost(summary)])


def difference(members: Sequence[Row], base: Sequence[Row]) -> str:
    """The mean paired difference of test accuracies and its interval, in points."""
    if len(members) < 2:
        return ""
    one, other = ({row["seed"]: row["trained_accuracy"] for row in of} for of in (members, base))
    return difference_range(one, other)
