"""The page of an experiment that has no `page.py`: each mask, untrained and trained."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "accuracies"


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds of each method and density."""
    return tables.methods(summary)
