"""The table and figure of the page: the steps that each mask takes to given training losses."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "first_steps"


def table(summary: Sequence[Row]) -> str:
    """The steps to each training loss, mean ± sample standard deviation over seeds.

    `-` means that some seed never reaches the loss.
    """
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
