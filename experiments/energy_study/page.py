"""The table and figure of the page: how well each energy ranks masks."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("correlations.csv",)
FIGURE = "energies"


def table(found: Sequence[Row]) -> str:
    """A line for each energy: its rank correlation at each density, and its cost.

    The cost is in forward passes of one example.
    """
    densities = list(dict.fromkeys(row["density"] for row in found))
    lines = [["energy", *(f"{density:g}" for density in densities), "forward passes"]]
    for name in dict.fromkeys(row["energy"] for row in found):
        mine = [row for row in found if row["energy"] == name]
        said = [
            f"{row['correlation']:+.2f}" + (f" ± {row['spread']:.2f}" if row["spread"] else "")
            for row in mine
        ]
        lines.append([name, *said, f"{mine[0]['cost']}"])
    return (
        "rank correlation with validation accuracy, trained; mean ± deviation over seeds\n"
        f"{tables.aligned(lines)}"
    )
