"""What the page shows of a run: tickets and their controls, level by level."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "lottery"


def table(summary: Sequence[Row]) -> str:
    """The methods at each density, apart for each learning rate and warm-up."""
    parts = [
        "\n".join(line for line in (words, tables.methods(members)) if line)
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
