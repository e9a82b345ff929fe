"""The table and figure of the page: the accuracy of kept weights, untrained and trained."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "supermasks"
UNTRAINED = "untrained_validation_accuracy"


def table(summary: Sequence[Row]) -> str:
    """Each combination at the level with the best untrained validation accuracy.

    Accuracies are means ± sample standard deviations over seeds.
    """
    groups: dict[tuple, dict[float, list[Row]]] = {}
    for row in summary:
        key = tuple(row.get(name) or "" for name in ("method", "ones", "zeros"))
        groups.setdefault(key, {}).setdefault(row["density"], []).append(row)
    there = tables.present(tables.ACCURACIES, summary)
    lines = [["criterion", "ones", "zeros", "density", "n", *(column.head for column in there)]]
    for key, levels in groups.items():
        score = {d: np.mean([r[UNTRAINED] for r in members]) for d, members in levels.items()}
        best = max(score, key=lambda density: score[density])
        members = levels[best]
        found = tables.cells(there, members)
        lines.append([*key, f"{best:.3g}", str(len(members)), *found])
    return tables.aligned(lines)
