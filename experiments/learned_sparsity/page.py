"""The result page of learned sparsity: a row for each method and strength, or density."""

from collections.abc import Sequence

import numpy as np

from experiments.harness.tables import VALIDATION, Column, Row, accuracy, aligned, cells, present

RECORDS = ("summary.csv",)
FIGURE = "accuracies"
COLUMNS = (
    Column("density %", "density", 100, 2, always=True),
    accuracy("trained", "test %"),
    Column("retrained %", "retrained_accuracy"),
    VALIDATION,
    Column("multiply-adds, zeros skipped %", "multiply_adds_left", 100, 1, always=True),
    Column("cut net: test %", "cut_accuracy"),
    Column("its multiply-adds %", "cut_left", 100, 1),
)


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds of each method and strength, or density.

    `factor` is all prunable weights over those left, of the mean. `units` are those on a path of
    kept weights from input to output. `cost` is the training's, in dense trainings.
    """
    there = present(COLUMNS, summary)
    layers = [name for name in summary[0] if name.startswith("left/")]
    asked = any(row["asked"] is not None for row in summary)
    cut = any(row.get("milliseconds_1") is not None for row in summary)
    head = ["method", "strength", *["asked"] * asked, "n", "factor"]
    head += [column.head for column in there]
    head += [*["units"] * bool(layers), *["ms of 1, of 128"] * cut, "cost", "seconds"]
    lines = [head]
    for (method, strength, density), members in grouped(summary).items():
        kept = float(np.mean([row["density"] for row in members]))
        units = [f"{np.mean([row[name] for row in members]):.0f}" for name in layers]
        lines.append(
            [
                method,
                "" if strength is None else f"{strength:g}",
                *(["" if density is None else f"{density:g}"] if asked else []),
                str(len(members)),
                f"{1 / kept:.1f}" if kept else "inf",
                *cells(there, members),
                *(["-".join(units)] if layers else []),
                *([_times(members)] if cut else []),
                f"{np.mean([row['cost'] for row in members]):.2f}",
                f"{np.mean([row['seconds'] for row in members]):.1f}",
            ]
        )
    return "\n".join([aligned(lines), *_lost(summary)])


def grouped(
    summary: Sequence[Row],
) -> dict[tuple[str, float | None, float | None], list[Row]]:
    """(method, strength, density asked for) -> rows."""
    groups: dict[tuple[str, float | None, float | None], list[Row]] = {}
    for row in summary:
        groups.setdefault((row["method"], row["strength"], row["asked"]), []).append(row)
    return groups


def _times(members: Sequence[Row]) -> str:
    """The latency of a cut net, and in brackets how much faster it is than the dense one."""
    found = [row for row in members if row.get("milliseconds_1") is not None]
    if not found:
        return ""
    row = found[0]
    times = [(row[f"milliseconds_{n}"], row[f"milliseconds_{n}_dense"]) for n in (1, 128)]
    return ", ".join(f"{ms:.3g} ({dense / ms:.2f}x)" for ms, dense in times)


def _lost(summary: Sequence[Row]) -> list[str]:
    """A line for each method and strength with runs that have emptied a layer."""
    found = []
    for (method, strength, density), members in grouped(summary).items():
        names = [name for name in members[0] if name.startswith("kept/")]
        empty = [row for row in members if not all(row[name] for name in names)]
        if empty:
            at = "" if strength is None else f" at strength {strength:g}"
            at += "" if density is None else f" at density {density:g}"
            lost = [name for name in names if not all(row[name] for row in empty)]
            where = ", ".join(name.removeprefix("kept/") for name in lost)
            found.append(
                f"a layer is lost: {method}{at} keeps nothing in {where} "
                f"({len(empty)} of {len(members)} runs)"
            )
    return found
