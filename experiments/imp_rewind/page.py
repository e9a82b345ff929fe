"""What the page shows of a run: tickets and their controls, level by level."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "lottery"
EARLY_STOP = (
    tables.Column("early stop %", "early_stop_accuracy"),
    tables.Column("at step", "early_stop_step", 1, 0),
)
"""Test accuracy where the validation loss is least, and when that is."""


def table(summary: Sequence[Row]) -> str:
    """The methods at each density, apart for each learning rate and warm-up."""
    parts = [
        "\n".join(line for line in (words, tables.methods(members, EARLY_STOP)) if line)
        for words, members in hyper_groups(summary).items()
    ]
    return "\n\n".join(parts)


def hyper_groups(summary: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each learning rate and warm-up, by words that name them; one if one was tried."""
    groups: dict[str, list[Row]] = {}
    for row in summary:
        words = ""
        if "rate" in row:
            words = f"learning rate {row['rate']:g}"
            words += f", warm-up {row['warmup']} steps" if row["warmup"] else ""
        groups.setdefault(words, []).append(row)
    return groups
