"""The result page of compression: a row for each stage of each method, density and level."""

from collections.abc import Sequence

import numpy as np

from experiments.compression.files import DENSE, STAGES
from experiments.harness.canvas import words
from experiments.harness.tables import Column, Row, accuracy, aligned, cells, present

RECORDS = ("summary.csv",)
FIGURE = "errors"
COLUMNS = (
    accuracy("trained", "test %"),
    Column("validation %", "validation_accuracy", always=True),
    Column("parameters", "parameters", 1, 0),
    Column("weights kept", "kept", 1, 0),
    Column("bytes", "bytes", 1, 0),
    Column("factor", "factor", 1, 1),
)
Key = tuple[str, float, float | None, str]


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds of each stage.

    `factor` is the dense net's parameters in float32 over the file. `ms of 1, of 128` is the
    latency of the first seed's net, and in brackets how much faster than the dense net it is.
    """
    there = present(COLUMNS, summary)
    shared = any(row["levels"] is not None for row in summary)
    timed = any(row.get("milliseconds_1") is not None for row in summary)
    head = ["stage", "method", "density %", *["values"] * shared, "n"]
    lines = [[*head, *(column.head for column in there), *["ms of 1, of 128"] * timed, "seconds"]]
    for (method, density, levels, stage), members in grouped(summary).items():
        lines.append(
            [
                words(stage),
                "" if method == DENSE else method,
                f"{100 * density:g}",
                *(["" if levels is None else f"{levels:g}"] if shared else []),
                str(len(members)),
                *cells(there, members),
                *([_times(members)] if timed else []),
                f"{np.mean([row['seconds'] for row in members]):.1f}",
            ]
        )
    return aligned(lines)


def grouped(summary: Sequence[Row]) -> dict[Key, list[Row]]:
    """(method, density, levels, stage) -> rows."""
    groups: dict[Key, list[Row]] = {}
    for row in summary:
        key = row["method"], row["density"], row["levels"], row["stage"]
        groups.setdefault(key, []).append(row)
    return groups


def ordered(summary: Sequence[Row]) -> list[Row]:
    """The rows by method, density and stage, and by number of shared values within these."""
    methods = list(dict.fromkeys(row["method"] for row in summary))
    stages = [DENSE, *STAGES]

    def place(row: Row) -> tuple[float, ...]:
        levels = -(row.get("levels") or np.inf)
        return methods.index(row["method"]), -row["density"], levels, stages.index(row["stage"])

    return sorted(summary, key=place)


def _times(members: Sequence[Row]) -> str:
    found = [row for row in members if row.get("milliseconds_1") is not None]
    if not found:
        return ""
    times = [(found[0][f"milliseconds_{n}"], found[0][f"speed_up_{n}"]) for n in (1, 128)]
    return ", ".join(f"{ms:.3g} ({faster:.2f}x)" for ms, faster in times)
