"""The table and figure of the page: a row for each strength of the penalty and each pass."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.structured_runs import BATCHES
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "accuracies"
ACCURACIES = (
    tables.accuracy("sparse"),
    tables.accuracy("cut"),
    tables.accuracy("tuned", "fine-tuned %"),
    tables.VALIDATION,
)
"""The accuracies before the cut, after it, and after fine-tuning."""


def table(summary: Sequence[Row]) -> str:
    """A line for each strength and pass: mean ± sample standard deviation over seeds."""
    layers = [name for name in summary[0] if name.startswith("units/")]
    there = tables.present(ACCURACIES, summary)
    head = ["penalty", "pass", "kept", "n", *(column.head for column in there), "parameters"]
    head += ["left %", "MFLOP", "left %", *(f"ms of {b} (faster)" for b in BATCHES), "units"]
    lines, groups = [head], dict[tuple[float, int], list[Row]]()
    for row in summary:
        groups.setdefault((row["strength"], row["pass"]), []).append(row)
    for (strength, number), members in groups.items():
        mean = {
            name: float(np.mean([row[name] for row in members]))
            for name, value in members[0].items()
            if isinstance(value, int | float)
        }
        lines.append(
            [
                *(f"{strength:g}", str(number), f"{members[0]['rate']:g}", str(len(members))),
                *tables.cells(there, members),
                *(f"{mean['parameters']:.0f}", f"{100 * mean['parameters_left']:.1f}"),
                f"{2 * mean['multiply_adds'] / 1e6:.3f}",
                f"{100 * mean['multiply_adds_left']:.1f}",
                *(
                    f"{mean[f'milliseconds_{b}']:.3g} ({mean[f'speed_up_{b}']:.2f}x)"
                    for b in BATCHES
                ),
                "-".join(f"{mean[name]:.0f}" for name in layers),
            ]
        )
    return tables.aligned(lines)
