"""The page: a row for each rule and retraining, a column for each amount of fusion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.harness.tables import Row, aligned, spread

RECORDS = ("summary.csv",)
FIGURE = "accuracies"
Key = tuple[float, str, str, str]


def table(summary: Sequence[Row]) -> str:
    """Test accuracy in % by rule and amount, and the size of the nets of each amount.

    Amounts are as they were asked for. Numbers are mean ± sample standard deviation over seeds;
    sizes are means, relative to the dense net.
    """
    amounts = list(dict.fromkeys(_amount(row) for row in summary))
    names = [amount for amount in amounts if amount]
    sparse = any(row["before_density"] != 1 for row in summary)
    lines = [["retrained", "how", "which", *["density before"] * sparse, "n", *names]]
    for (before, retrain, how, which), members in grouped(summary).items():
        at = {name: [row for row in members if _amount(row) == name] for name in names}
        some = at if any(at.values()) else dict.fromkeys(names, members)  # the dense net's
        cells = [_accuracy(mine) for mine in some.values()]
        seeds = len({row["seed"] for row in members})
        named = [retrain, how, which, *[f"{before:g}"] * sparse, str(seeds)]
        lines.append([*named, *cells])
    return f"{aligned(lines)}\n\n{_sizes(summary, amounts)}"


def grouped(summary: Sequence[Row]) -> dict[Key, list[Row]]:
    """(density before, retraining, how, which) -> rows."""
    groups: dict[Key, list[Row]] = {}
    for row in summary:
        retrain, how, which = (str(row[name] or "") for name in ("retrain", "how", "which"))
        groups.setdefault((float(row["before_density"]), retrain, how, which), []).append(row)
    return groups


def _amount(row: Row) -> str:
    asked: Any = row["asked"]
    return "" if asked is None else str(asked)


def _accuracy(members: Sequence[Row]) -> str:
    return spread([row["trained_accuracy"] for row in members]) if members else ""


def _sizes(summary: Sequence[Row], amounts: Sequence[str]) -> str:
    """A line for the dense net and for each amount."""
    layers = [name for name in summary[0] if name.startswith("units/")]
    lines = [["amount", "units left %", "parameters left %", "multiply-adds left %", "units"]]
    for amount in amounts:
        mine = [row for row in summary if _amount(row) == amount]
        shares = [
            f"{100 * float(np.mean([row[name] for row in mine])):.1f}"
            for name in ("units_left", "parameters_left", "multiply_adds_left")
        ]
        units = [f"{np.mean([row[name] for row in mine]):.0f}" for name in layers]
        lines.append([amount or "dense", *shares, "-".join(units)])
    return aligned(lines)
