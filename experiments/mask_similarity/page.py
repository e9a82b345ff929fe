"""What the page shows of a run: how alike pairs of masks are."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "similarity"


def table(pairs: Sequence[Row]) -> str:
    """Mean ± sample standard deviation of the cosine over pairs of different masks, all layers.

    Masks of one seed lie over the same first weights, and so are apart from the others.
    """
    groups: dict[tuple[float, str, str, str], list[Row]] = {}
    for row in pairs:
        alike = row["seed_a"] == row["seed_b"]
        if row["layer"] == "all" and not (alike and row["method_a"] == row["method_b"]):
            names = sorted((row["method_a"], row["method_b"]))
            key = row["density"], *names, "same" if alike else "other"
            groups.setdefault(key, []).append(row)
    lines = [["masks", "density", "seed", "pairs", "cosine %", "by chance %"]]
    for (density, a, b, kind), members in sorted(groups.items(), key=lambda item: -item[0][0]):
        values = [tables.spread([row[m] for row in members]) for m in ("cosine", "chance")]
        lines.append([f"{a}, {b}", f"{density:g}", kind, str(len(members)), *values])
    return tables.aligned(lines)
