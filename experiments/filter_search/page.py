"""What the page shows of a run: small nets, and what their weights are worth."""

from collections.abc import Sequence

from experiments.harness import structured_tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "accuracies"


def table(summary: Sequence[Row]) -> str:
    """Methods side by side, then what the weights and the choice of units are worth."""
    return f"{structured_tables.table(summary)}\n\n{structured_tables.worth(summary)}"
