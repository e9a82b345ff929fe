"""Figures of early-bird tickets: distances between the masks of epochs, and tickets' accuracies."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import (
    densities,
    deviations,
    legend_beside,
    over_seeds,
    save,
    subplots,
)
from experiments.harness.records import read_spec

MARKS = {
    "early_bird": ("*", "C3", "early bird"),
    "random_layerwise": ("x", "0.4", "its weights, random mask"),
    "late_mask": ("d", "C2", "its weights, last mask"),
}
"""Marker, colour and label of the tickets with weights of the epoch that the rule drew."""


def draw_distances(folder: Path) -> Path:
    """Draws the normalised Hamming distances between the masks of all epochs.

    Each density has a panel with means over seeds. Dashed lines are the epochs that the rule drew,
    one for each seed.
    """
    spec = read_spec(folder)
    seen = [r for r in rows.read_metrics(folder) if r["phase"] == "search" and "distances" in r]
    left = sorted({row["density"] for row in seen}, reverse=True)
    epochs = max(row["epoch"] for row in seen)
    drawn = _drawn(folder)
    fig, axes = subplots(1, len(left), (5.1 * len(left) + 0.8, 4.6))
    for panel, density in zip(axes.flat, left, strict=True):
        mine = [row for row in seen if row["density"] == density]
        far = matrix(mine, epochs)
        ends = (0.5, epochs + 0.5)
        shown = panel.imshow(far, "viridis_r", vmin=0, extent=(*ends, *ends[::-1]))
        bar = fig.colorbar(shown, ax=panel, shrink=0.8)
        bar.set_label("normalised Hamming distance")
        panel.locator_params(integer=True)
        for epoch in [d for at, d in drawn if at == density and d]:
            panel.axvline(epoch, color="C3", ls="--", lw=1)
            panel.axhline(epoch, color="C3", ls="--", lw=1)
        title = f"{100 * density:g} % left"
        if spec["criterion"] != "annealed":  # annealed masks start from the same mask
            title += f"; random masks: {2 * density * (1 - density):.2f}"
        panel.set_title(title, fontsize="medium")
        panel.set(xlabel="epoch", ylabel="epoch")
    fig.suptitle(
        f"Distance between masks: {spec['model']} on {spec['dataset']}, {spec['granularity']} by "
        f"{spec['criterion']}; dashed: epoch of the draw"
    )
    return save(fig, folder, "mask_distances")


def matrix(seen: list[dict[str, Any]], epochs: int) -> np.ndarray:
    """float`[epochs, epochs]`: the mean distances, symmetric; nan for epochs without a row.

    Args:
      seen: metrics rows of one density, with `epoch` and `distances` (the latest epoch first).
      epochs: the number of epochs.
    """
    seeds = sorted({row["seed"] for row in seen})
    far = np.full((len(seeds), epochs, epochs), np.nan)
    for row in seen:
        at, e = seeds.index(row["seed"]), row["epoch"] - 1
        before = row["distances"][::-1]
        far[at, e, : e + 1] = far[at, : e + 1, e] = [*before, 0.0]
    return far.mean(0)


def draw_accuracy(folder: Path) -> Path:
    """Draws the test accuracy of tickets against the epoch of the draw, with a panel per density.

    The line shows tickets drawn at fixed epochs and at the last one, with mean and standard
    deviation over seeds. Tickets that the rule drew have a point for each seed.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    left = densities(summary)
    fig, axes = subplots(1, len(left), (4.8 * len(left) + 2.6, 4.6))
    dense = [100 * row["trained_accuracy"] for row in summary if row["method"] == "dense"]
    for panel, density in zip(axes.flat, left, strict=True):
        mine = [row for row in summary if row["density"] == density]
        panel.axhline(np.mean(dense), color="0.4", ls=":", label="dense")
        fixed = [r for r in mine if r["method"] == "late" or r["method"].startswith("drawn_at_")]
        epochs = sorted({row["drawn_epoch"] for row in fixed})
        groups = [
            [100 * r["trained_accuracy"] for r in fixed if r["drawn_epoch"] == e] for e in epochs
        ]
        means, bars = [np.mean(g) for g in groups], deviations(groups)
        panel.errorbar(epochs, means, bars, marker="o", capsize=2, label="drawn at that epoch")
        for method, (marker, colour, words) in MARKS.items():
            if all(row["method"] != method for row in summary):
                continue  # it must not be in the legend either
            found = [row for row in mine if row["method"] == method]
            panel.plot(
                [row["drawn_epoch"] for row in found],
                [100 * row["trained_accuracy"] for row in found],
                marker,
                color=colour,
                label=words,
                ms=11 if marker == "*" else 7,
                alpha=0.8,
            )
        panel.set(xlabel="epoch at which the ticket is drawn", title=f"{100 * density:g} % left")
        panel.locator_params(axis="x", integer=True)
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("test accuracy (%)")
    legend_beside(axes.flat[-1])
    how = {"continue": "training continues", "retrain": "retrained from step 0"}[spec["after"]]
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}, {spec['granularity']}: after the cut {how}; last "
        f"point retrained from step 0\n{over_seeds(len(dense))}"
    )
    return save(fig, folder, "accuracy_over_draw")


def _drawn(folder: Path) -> list[tuple[float, int]]:
    """The density and the epoch of the draw, for each density and seed."""
    with (folder / "drawn.csv").open(encoding="utf-8", newline="") as file:
        return [(float(row["density"]), int(row["drawn"])) for row in csv.DictReader(file)]
