"""The table and figure of the page: the density below which skipping zeros pays."""

import math
from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row
from experiments.sparse_execution import sparse_times
from jaxtickets.compress import sparse

RECORDS = ("summary.csv",)
FIGURE = "sparse"


def table(done: Sequence[Row]) -> str:
    """The density below which each sparse form pays, for each net and workload, with random masks.

    A form pays if it is faster than the dense form in three of four paired calls.
    """
    mine = [row for row in done if row["mask"] == "random" and "ratio" in row]
    works = list(dict.fromkeys((row["work"], row["batch"]) for row in mine))
    lines = [["pays below", "form", *(f"{work}, {batch}" for work, batch in works)]]
    for model in dict.fromkeys(row["model"] for row in mine):
        for form in sparse.FORMS:
            cells = []
            for work in works:
                here = model, form, *work
                curve = [
                    (row["density"], row["ratio_low"])
                    for row in mine
                    if (row["model"], row["form"], row["work"], row["batch"]) == here
                ]
                cells.append(_words(sparse_times.pays_below(curve)) if curve else "")
            lines.append([model, form, *cells])
    return tables.aligned(lines)


def _words(density: float) -> str:
    if density in (0.0, math.inf):
        return "always" if density else "never"
    return f"{100 * density:.2g} %"
