"""The table and figure of the page: tickets drawn early and late, and what they save."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv", "drawn.csv")
FIGURE = "accuracy_over_draw"


def table(summary: Sequence[Row], drawn: Sequence[Row]) -> str:
    """The methods; then, for each density, the epoch of the draw, its saving and its cost.

    Args:
      summary: a row for each method, density and seed.
      drawn: a row for each density and seed: the epoch of the draw, and the masks' distance.
    """
    lines = [tables.methods(summary)]
    for density in dict.fromkeys(row["density"] for row in drawn):
        mine = [row for row in drawn if row["density"] == density]
        found = [row["drawn"] for row in mine if row["drawn"]]
        of = {
            method: {
                row["seed"]: row
                for row in summary
                if (row["method"], row["density"]) == (method, density)
            }
            for method in ("early_bird", "late")
        }
        said = f"density {density:g}: drawn by {len(found)} of {len(mine)} seeds"
        if found:
            at = tables.spread(found, 1, 1)
            far = np.mean([row["distance"] for row in mine if row["drawn"]])
            said += f" at epoch {at} of {mine[0]['epochs']}, masks {far:.3f} apart"
            if (chance := mine[0]["chance"]) is not None:
                said += f" (random ones {chance:.3f})"
        else:
            far = np.mean([row["distance"] for row in mine])
            said += f": the last masks are {far:.3f} apart"
        lines.append(said)
        if of["early_bird"]:
            accuracies = [
                {seed: row["trained_accuracy"] for seed, row in of[method].items()}
                for method in ("early_bird", "late")
            ]
            points = tables.difference_range(accuracies[0], accuracies[1])
            saved = [row["saved"] for row in of["early_bird"].values()]
            more = np.mean(saved) < 0
            share = tables.spread([-x for x in saved] if more else saved, digits=1)
            work = "more work" if more else "of the work saved"
            lines.append(
                f"  {share} % {work}; less the late ticket, paired, with its 95 % interval: "
                f"{points} points"
            )
    return "\n".join(lines)
