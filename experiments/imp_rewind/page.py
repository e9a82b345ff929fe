"""The table and figure of the page: tickets and their controls, level by level."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "lottery"
EARLY_STOP = (
    tables.Column("early stop %", "early_stop_accuracy"),
    tables.Column("at step", "early_stop_step", 1, 0),
)
"""The test accuracy at the lowest validation loss, and the step of that evaluation."""


def table(summary: Sequence[Row]) -> str:
    """A table of the methods at each density, for each learning rate and warm-up."""
    parts = [
        "\n".join(line for line in (words, tables.methods(members, EARLY_STOP)) if line)
        for words, members in hyper_groups(summary).items()
    ]
    return "\n\n".join(parts)


def hyper_groups(summary: Sequence[Row]) -> dict[str, list[Row]]:
    """`{title: rows}` for each learning rate and warm-up; an only one has an empty title."""
    groups: dict[str, list[Row]] = {}
    for row in summary:
        words = ""
        if "rate" in row:
            words = f"learning rate {row['rate']:g}"
            words += f", warm-up {row['warmup']} steps" if row["warmup"] else ""
        groups.setdefault(words, []).append(row)
    return groups
