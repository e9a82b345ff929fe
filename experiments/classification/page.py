"""The result page: accuracy, calibration and uncertainty of each net."""

from collections.abc import Sequence

import numpy as np

from experiments.harness.tables import Column, Row, accuracy, aligned, cells

RECORDS = ("summary.csv",)
FIGURE = "reliability"
COLUMNS = (
    accuracy("trained", "test %"),
    Column("NLL", "nll", 1, 3),
    Column("ECE %", "ece"),
    Column("Brier", "brier", 1, 4),
    Column("entropy", "entropy", 1, 3),
    Column("mutual inf.", "mutual_information", 1, 4),
    Column("other: entropy", "other_entropy", 1, 3),
    Column("AUROC", "auroc", 1, 3),
)


def table(summary: Sequence[Row]) -> str:
    """A table for each model and data set: mean ± sample standard deviation over seeds.

    All but accuracy, ECE (%) and AUROC are in nats, or have no unit. `other` are the images that
    the net has not seen the like of, and AUROC says how well entropy tells them from test images.
    `seconds` are those from nothing to the net, the dense net's included where it is needed; seeds
    that were trained together share them, so that they have no spread.
    """
    nets = dict.fromkeys((row["model"], row["dataset"]) for row in summary)
    parts = []
    for model, dataset in nets:
        mine = [row for row in summary if (row["model"], row["dataset"]) == (model, dataset)]
        parts.append(f"{model} on {dataset}\n{_table(mine)}")
    return "\n\n".join(parts)


def _table(summary: Sequence[Row]) -> str:
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in summary:
        groups.setdefault((row["method"], row["net"], row["density"]), []).append(row)
    lines = [["method", "net", "density", "n", *(column.head for column in COLUMNS), "seconds"]]
    for (method, net, density), members in groups.items():
        named = [method, net, f"{density:g}", str(len(members))]
        seconds = f"{np.mean([row['seconds'] for row in members]):.1f}"
        lines.append([*named, *cells(COLUMNS, members), seconds])
    return aligned(lines)
