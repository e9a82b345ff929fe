"""A figure of ticket transfer: matrices of source and target, and masks of other seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import legend_beside, over_seeds, save, subplots, words
from experiments.harness.records import read_spec
from experiments.harness.tables import Row, paired
from experiments.ticket_transfer.page import ACROSS, accuracies, labels


def draw_transfer(folder: Path) -> Path:
    """Draws a ticket's accuracy above chance and below the target's own, and masks of other seeds.

    Chance is a random mask with the counts of the target's own ticket. The last panel shows the
    difference from chance with its 95 % interval.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    names = labels(summary)
    side = 2.6 + 0.55 * len(names)
    fig, axes = subplots(1, 3, (3 * side + 3, side + 1))
    _matrix(fig, axes[0, 0], summary, "random", "test accuracy - random mask's (points)")
    _matrix(fig, axes[0, 1], summary, "ticket", "test accuracy - own ticket's (points)")
    _other_seeds(axes[0, 2], summary)
    n, levels = spec["seeds"], spec["levels"]
    left = np.mean([row["density"] for row in summary if row["method"] == "ticket"])
    pruned = f"{100 * left:.1f} % of the weights after {levels} level{'s'[: levels - 1]}"
    fig.suptitle(
        f"Tickets of {spec['model']} with {pruned}, trained elsewhere: {over_seeds(n, 'means')}",
        fontsize="medium",
    )
    return save(fig, folder, "transfer")


def _matrix(fig: Any, panel: Any, summary: Sequence[Row], reference: str, title: str) -> None:
    names = labels(summary)
    values = np.full((len(names), len(names)), np.nan)
    for i, source in enumerate(names):
        for j, target in enumerate(names):
            own = target if reference == "ticket" else None
            theirs = accuracies(summary, target, reference, own)
            mean, _ = paired(accuracies(summary, target, "ticket", source), theirs)
            values[i, j] = 100 * mean
            panel.text(j, i, f"{100 * mean:+.1f}", ha="center", va="center", fontsize="small")
    far = max(float(np.nanmax(np.abs(values))), 0.1)
    shown = panel.imshow(values, cmap="RdBu", vmin=-1.5 * far, vmax=1.5 * far)
    fig.colorbar(shown, ax=panel, shrink=0.7)
    places = range(len(names))
    panel.set_xticks(places, names, rotation=45, ha="right", fontsize="small")
    panel.set_yticks(places, names, fontsize="small")
    panel.set(xlabel="trained on", ylabel="found on")
    panel.set_title(title, fontsize="small")


def _other_seeds(panel: Any, summary: Sequence[Row]) -> None:
    """Differences from the random mask: the own ticket, and masks of another seed."""
    names = labels(summary)
    methods = [name for name in ACROSS if any(row["method"] == name for row in summary)]
    for at, method in enumerate(("ticket", *methods)):
        found = [
            paired(
                accuracies(summary, target, method, target), accuracies(summary, target, "random")
            )
            for target in names
        ]
        mean = 100 * np.array([one for one, _ in found])
        half = 100 * np.array([half for _, half in found])
        places = np.arange(len(names)) + 0.15 * (at - len(methods) / 2)
        label = "own ticket" if method == "ticket" else words(method)
        style = {"fmt": "osD^v"[at], "ms": 4, "lw": 1, "capsize": 2, "color": f"C{at}"}
        bars = half if np.all(np.isfinite(half)) else None  # a single seed has no interval
        panel.errorbar(places, mean, bars, label=label, **style)
    panel.axhline(0, color="0.5", lw=0.8)
    panel.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize="small")
    panel.set_ylabel("test accuracy - random mask's (points)")
    intervals = ", with 95 % intervals" * (len({row["seed"] for row in summary}) > 1)
    panel.set_title(f"masks of another seed{intervals}", fontsize="small")
    panel.grid(alpha=0.3)
    legend_beside(panel)
