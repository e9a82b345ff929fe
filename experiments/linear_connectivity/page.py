"""The table and figure of the page: the rise of the loss between two trainings."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "barriers"


def table(summary: Sequence[Row]) -> str:
    """The barrier and accuracy of each method, density and step at which the trainings part.

    Both are in percentage points, mean ± sample standard deviation.
    """
    groups: dict[tuple[str, float, int], list[Row]] = {}
    for row in summary:
        groups.setdefault((row["method"], row["density"], row["rewind"]), []).append(row)
    lines = [["method", "density", "parted at", "n", "barrier, points", "trained %"]]
    for (method, density, rewind), members in groups.items():
        barrier = tables.spread([row["test_barrier"] for row in members if row["order"] == 0])
        accuracy = tables.spread([row["trained_accuracy"] for row in members])
        n = len({row["seed"] for row in members})
        lines.append([method, f"{density:.4g}", str(rewind), str(n), barrier, accuracy])
    return tables.aligned(lines)
