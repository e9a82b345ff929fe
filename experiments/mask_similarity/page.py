"""The table and figure of the page: the similarity of pairs of masks."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "similarity"


def table(pairs: Sequence[Row]) -> str:
    """The cosine of pairs of different masks over all layers, mean ± sample standard deviation.

    Pairs of one seed have the same initial weights, so they have lines of their own.
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
