"""The table and figure of the page: small nets, and the value of their weights."""

from collections.abc import Sequence

from experiments.harness import structured_tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "accuracies"


def table(summary: Sequence[Row]) -> str:
    """Compares the methods, then the trained weights and the selected units with controls."""
    return f"{structured_tables.table(summary)}\n\n{structured_tables.worth(summary)}"
