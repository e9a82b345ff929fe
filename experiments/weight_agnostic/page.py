"""The table and figure of the page: a champion's accuracy by how its weights are given."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "overview"
WAYS = (
    ("one random weight, from -2 to 2", "random", "82.0"),
    ("the best one on validation", "tuned", "91.9"),
    ("ensemble of six", "ensemble", "91.6"),
    ("each trained", "trained", "94.2"),
)
"""A way of giving weights, its field, and the published accuracy on MNIST (Gaier and Ha 2019)."""


def table(summary: Sequence[Row]) -> str:
    """A line for each way of giving weights, then the sizes of the champions and the speed."""
    lines = [["weights", "n", "test %", "published: MNIST, 4,096 generations of 960"]]
    for name, field, published in WAYS:
        values = [row[f"{field}_accuracy"] for row in summary]
        lines.append([name, str(len(values)), tables.spread(values), published])
    return f"{tables.aligned(lines)}\n\n" + "\n".join(map(_sentence, summary))


def _sentence(row: Row) -> str:
    speed = row["generations_per_second"]
    rate = "" if speed is None else f", {speed:.2f} a second"
    return (
        f"seed {row['seed']}: {row['generations']} generations of {row['population']} graphs on"
        f" {row['images']} images{rate}; in the champion {row['connections']} connections and"
        f" {row['hidden']} hidden nodes lead to an output; its best weight is"
        f" {row['tuned_weight']:g}; over random weights the standard deviation is"
        f" {100 * row['random_deviation']:.1f}"
    )
