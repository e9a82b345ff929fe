"""What the page shows of a run: every cut, rewound to the initialisation."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "grid"


def table(summary: Sequence[Row]) -> str:
    """The masks of each threshold, rewound to the initialisation."""
    return tables.methods([row for row in summary if not row.get("rewind")])
