"""The table and figure of the page: methods at the largest budget, and what searches gain."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.annealed_variants import ANNEALED
from experiments.harness.search_presets import SEARCH_PRESETS
from experiments.harness.sparse_runs import GRANET
from experiments.harness.tables import Row
from experiments.sa_frontier.halving_runs import RACED

RECORDS = ("summary.csv",)
FIGURE = "accuracy_over_budget"
CHEAP = ("snip", "grasp", "synflow", "initial_fisher", "random_erk")
"""Methods that neither train nor search."""


def table(summary: Sequence[Row]) -> str:
    """The methods at the largest budget, then each search less the best of `CHEAP`.

    The validation data decide which is best, not the test data.
    """
    budget = max((row["budget"] for row in summary if row.get("budget")), default=None)
    largest = [row for row in summary if row.get("budget") in (None, budget)]
    lines: list[str] = []
    for density in sorted({row["density"] for row in largest if row["method"] != "dense"})[::-1]:
        of, judged = (
            {
                name: {row["seed"]: row[field] for row in largest if _is(row, name, density)}
                for name in dict.fromkeys(row["method"] for row in largest)
            }
            for field in ("trained_accuracy", "validation_accuracy")
        )
        cheap = [name for name in CHEAP if of.get(name)]
        if not cheap:
            continue
        best = max(cheap, key=lambda name: sum(judged[name].values()))
        for name in (GRANET, *ANNEALED, *SEARCH_PRESETS, RACED):
            if of.get(name):
                points = tables.difference_range(of[name], of[best])
                lines.append(f"{name} less {best} at {density:g}: {points}")
    head = "differences in points, paired by seed, with 95 % intervals:"
    return "\n".join([tables.methods(largest), *([head, *lines] if lines else [])])


def _is(row: Row, name: str, density: float) -> bool:
    return row["method"] == name and row["density"] == density
