"""The tables and the figure of the page: structures, and families."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv", "families.csv")
FIGURE = "shares"


def table(done: Sequence[Row], families: Sequence[Row]) -> str:
    """Two tables: a row a structure; then, for each net and family, what works and what says no."""
    return "\n\n".join([structures_table(done), families_table(families)])


def structures_table(done: Sequence[Row]) -> str:
    """Units, difference, sizes and times of each structure, before and after."""
    head = ["structure", "kind", "units", "left", "difference", "parameters", "left", "mult-adds",
            "left", "trace ms", "ms", "left", "Torch-Pruning"]  # fmt: skip
    lines = [head]
    for row in done:
        lines.append([
            row["structure"],
            row["kind"],
            f"{row['units']}",
            f"{row['left']}",
            f"{row['difference']:.0e}",
            f"{row['parameters']:,}",
            f"{row['small_parameters']:,}",
            f"{row['adds']:,}",
            f"{row['small_adds']:,}",
            f"{row['trace_ms']:.0f}",
            f"{row['ms']:.2f}",
            f"{row['small_ms']:.2f}",
            row["documented"] or "-",
        ])  # fmt: skip
    text = tables.aligned(lines)
    stays = [f"{row['structure']}: {row['stays']}" for row in done if row["stays"]]
    return "\n".join([text, *(["", "What must stay:", *stays] if stays else [])])


def families_table(families: Sequence[Row]) -> str:
    """How many members of each family work with each net, and the errors of the others."""
    nets = list(dict.fromkeys(row["structure"] for row in families))
    lines, errors = [["family", *nets]], list[str]()
    for family in dict.fromkeys(row["family"] for row in families):
        cells = [family]
        for net in nets:
            mine = [r for r in families if r["structure"] == net and r["family"] == family]
            works = sum(row["result"] == "works" for row in mine)
            cells.append(f"{works} of {len(mine)}")
            errors += [
                f"{net}, {family} {row['member']}: {row['result']}"
                for row in mine
                if row["result"] != "works"
            ]
        lines.append(cells)
    return "\n".join([tables.aligned(lines), *(["", *errors] if errors else [])])
