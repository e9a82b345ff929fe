"""What the page shows of a run: how soon each mask reaches given training losses."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "first_steps"


def table(summary: Sequence[Row]) -> str:
    """Steps to each loss, mean ± sample standard deviation over seeds; `-` if a seed never does."""
    targets = [name for name in summary[0] if name.startswith("steps_to/")]
    heads = [name.replace("steps_to/", "steps to ") for name in targets]
    lines = [["method", "density", "n", *heads]]
    for (method, _, density), members in tables.grouped(summary).items():
        cells = []
        for target in targets:
            steps = [row[target] for row in members]
            cells.append("-" if np.isnan(steps).any() else tables.spread(steps, 1, 0))
        lines.append([method, f"{density:g}", str(len(members)), *cells])
    return tables.aligned(lines)
