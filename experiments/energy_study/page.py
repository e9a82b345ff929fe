"""What the page shows of a run: which energy ranks masks as training does."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("correlations.csv",)
FIGURE = "energies"


def table(found: Sequence[Row]) -> str:
    """An energy a row, the correlation at each density and the cost beside it."""
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
