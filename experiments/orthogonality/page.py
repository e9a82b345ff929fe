"""The table and figure of the page: the orthogonality of masks, and their accuracy."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "orthogonality"
COLUMNS = (
    tables.Column("score", "orthogonality", 1, 5, always=True),
    tables.accuracy("trained"),
    tables.VALIDATION,
)


def table(summary: Sequence[Row]) -> str:
    """The score and accuracy of each mask, then their correlation at each density."""
    there = tables.present(COLUMNS, summary)
    lines = [["method", "check", "density", "n", *(column.head for column in there)]]
    for (method, check, density), members in tables.grouped(summary).items():
        named = [method, check, f"{density:g}", str(len(members))]
        lines.append([*named, *tables.cells(there, members)])
    return f"{tables.aligned(lines)}\n\n{_correlations(summary)}"


def _correlations(summary: Sequence[Row]) -> str:
    """Pearson's r of score and trained accuracy at each density, without repaired masks.

    Between methods, r is over their means. Within methods, it is over seeds, after each method's
    mean is subtracted.
    """
    lines = []
    pruned = [row for row in summary if row["method"] != "dense" and not row.get("check")]
    for density in sorted({row["density"] for row in pruned}, reverse=True):
        groups: dict[str, list[tuple[float, float]]] = {}
        for row in pruned:
            if row["density"] == density:
                pair = row["orthogonality"], row["trained_accuracy"]
                groups.setdefault(row["method"], []).append(pair)
        means = [np.mean(members, axis=0) for members in groups.values()]
        centred = [np.array(m) - mean for m, mean in zip(groups.values(), means, strict=True)]
        between, within = _pearson(np.array(means)), _pearson(np.concatenate(centred))
        lines.append(
            f"density {density:g}: r of score and accuracy {between} between {len(means)} methods, "
            f"{within} within them"
        )
    return "\n".join(lines)


def _pearson(pairs: np.ndarray) -> str:
    """r of `[n, 2]`, or `-` where fewer than three points or no spread leave it undefined."""
    if len(pairs) < 3 or min(pairs.std(0)) < 1e-12:
        return "-"
    return f"{np.corrcoef(pairs.T)[0, 1]:+.2f}"
