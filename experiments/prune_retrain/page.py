"""The table and figure of the page: the weights left after the last round of each threshold."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "pruning"
COLUMNS = (
    tables.accuracy("untrained", "cut %"),
    tables.accuracy("trained", "retrained %"),
    tables.VALIDATION,
)
"""The accuracies after the last cut, and after the retraining that follows."""
MOST_LAYERS = 10
"""Deeper nets have no columns of their layers' counts, which stand in the summary."""


def table(summary: Sequence[Row]) -> str:
    """A table for each net, and a line for each method and density that leaves a layer empty."""
    nets = dict.fromkeys(row["model"] for row in summary)
    of_nets = [[row for row in summary if row["model"] == net] for net in nets]
    return "\n\n".join("\n".join([_table(rows), *tables.lost(rows)]) for rows in of_nets)


def _table(summary: Sequence[Row]) -> str:
    """The last round of each threshold: mean ± sample standard deviation over seeds."""
    last = max(row["round"] for row in summary)
    groups: dict[float, list[Row]] = {}
    for row in summary:
        if row["method"] == "dense" or row["round"] == last:
            groups.setdefault(row.get("threshold") or 0.0, []).append(row)
    layers = tables.kept_layers(summary[0])
    layers = layers if len(layers) <= MOST_LAYERS else []
    there = tables.present(COLUMNS, summary)
    lines = [
        [
            *("threshold", "n", *(column.head for column in there)),
            *("parameters", "factor", "MFLOP"),
            *(name.split("/")[1] for name in layers),
        ]
    ]
    for threshold, members in groups.items():
        mean = {
            name: float(np.mean([row[name] for row in members]))
            for name in ("parameters", "compression", "multiply_adds", *layers)
        }
        lines.append(
            [
                f"{threshold:g}" if threshold else "dense",
                str(len(members)),
                *tables.cells(there, members),
                f"{mean['parameters']:.0f}",
                f"{mean['compression']:.1f}x",
                f"{2 * mean['multiply_adds'] / 1e6:.3f}",
                *(f"{mean[name]:.0f}" for name in layers),
            ]
        )
    head = f"{summary[0]['model']}, after {last} round{'s' * (last > 1)}"
    return f"{head}\n{tables.aligned(lines)}"
