"""Accuracy by pruning threshold and rewind epoch, and what trainings cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import deviations, legend_beside, over_seeds, save, subplots
from experiments.harness.records import read_spec
from experiments.harness.tables import Row

LABELS = {
    "ticket": "ticket",
    "shuffled": "mask shuffled within layers",
    "reinit": "new initialisation",
    "dense": "dense net",
}
WIDE = 1.8
"""The width of a picture over its height, which the heat maps' places come close to."""


def draw_grid(folder: Path) -> Path:
    """Draws the tickets' test accuracy beside that of dense, shuffled masks and reinit.

    Several thresholds have heat maps, see `_maps`; a single one has lines over the rewind epoch.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    cuts = sorted({row["threshold"] for row in summary if row["method"] == "ticket"})
    fig = _maps(summary) if len(cuts) > 1 else _lines(summary)
    cut = f", {cuts[0]:g} % pruned" if len(cuts) == 1 else ""
    dense = 100 * np.mean([row["trained_accuracy"] for row in summary if row["method"] == "dense"])
    fig.suptitle(
        f"One-shot tickets: {spec['model']} on {spec['dataset']}{cut}, "
        f"{over_seeds(len({row['seed'] for row in summary}))}; dense {dense:.2f} %"
    )
    return save(fig, folder, "grid")


def _lines(summary: Sequence[Row]) -> Any:
    """A figure with test accuracies over the rewind epoch; dense and reinit are levels."""
    fig, axes = subplots(1, 1, (7.6, 4.2))
    panel = axes[0, 0]
    for i, (method, name) in enumerate(LABELS.items()):
        mine = [row for row in summary if row["method"] == method]
        at = sorted({row["rewind"] for row in mine if row.get("rewind") is not None})
        if at:
            groups = [
                [100 * row["trained_accuracy"] for row in mine if row["rewind"] == rewind]
                for rewind in at
            ]
            means, bars = [np.mean(group) for group in groups], deviations(groups)
            panel.errorbar(at, means, bars, fmt="o-", color=f"C{i}", capsize=2, label=name)
            panel.set_xticks(at, [f"{rewind:g}" for rewind in at])
        elif mine:
            level = 100 * np.mean([row["trained_accuracy"] for row in mine])
            panel.axhline(level, color=f"C{i}", ls="--", label=name)
    panel.set(xlabel="rewound to epoch", ylabel="test accuracy (%)")
    panel.grid(alpha=0.3)
    legend_beside(panel)
    return fig


def _maps(summary: Sequence[Row]) -> Any:
    """A figure with heat maps of the tickets' accuracy and of its differences from the others.

    A cell shows the mean and the sample standard deviation over seeds. Differences are taken within
    seeds.
    """
    tickets = [row for row in summary if row["method"] == "ticket"]
    thresholds = sorted({row["threshold"] for row in tickets})
    rewinds = sorted({row["rewind"] for row in tickets})
    seeds = sorted({row["seed"] for row in tickets})
    accuracy = {_place(row): 100 * row["trained_accuracy"] for row in summary}

    def cells(method: str) -> np.ndarray:
        """Accuracies `[thresholds, rewinds, seeds]`, repeated along axes that don't matter."""
        at = {
            "dense": lambda t, r, s: ("dense", None, None, s),
            "reinit": lambda t, r, s: ("reinit", t, None, s),
        }.get(method, lambda t, r, s: (method, t, r, s))
        return np.array(
            [[[accuracy[at(t, r, s)] for s in seeds] for r in rewinds] for t in thresholds]
        )

    mine = cells("ticket")
    maps = {"test accuracy (%)": mine}
    maps["less the dense net's (points)"] = mine - cells("dense")
    maps["less the shuffled mask's (points)"] = mine - cells("shuffled")
    maps["less the new initialisation's (points)"] = mine - cells("reinit")
    width, height = 1.7 + 0.75 * len(rewinds), 1.3 + 0.4 * len(thresholds)
    high = min((1, 2, 4), key=lambda n: abs(np.log(4 * width / (n * n * height) / WIDE)))
    fig, axes = subplots(high, 4 // high, (4 // high * width, 0.5 + high * height))
    far = max(np.abs(np.median(np.abs(m.mean(-1)))) for m in list(maps.values())[1:]) * 3 or 1.0
    for i, (panel, (title, values)) in enumerate(zip(axes.flat, maps.items(), strict=True)):
        mean = values.mean(-1)
        if i:
            shown = panel.imshow(mean, cmap="RdBu", vmin=-far, vmax=far, aspect="auto")
        else:
            low = np.percentile(mean, 5)
            shown = panel.imshow(mean, cmap="viridis", vmin=low, aspect="auto")
        for y, x in np.ndindex(*mean.shape):
            text = f"{mean[y, x]:+.2f}" if i else f"{mean[y, x]:.2f}"
            if len(seeds) > 1:
                text += f"\n±{values[y, x].std(ddof=1):.2f}"
            red, green, blue, _ = shown.to_rgba(mean[y, x])
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            colour = "white" if dark else "black"
            panel.text(x, y, text, ha="center", va="center", color=colour, fontsize=6.5)
        panel.set_xticks(range(len(rewinds)), [f"{r:g}" for r in rewinds])
        panel.set_yticks(range(len(thresholds)), [f"{t:g}" for t in thresholds])
        panel.set(xlabel="rewound to epoch", title=title)
        panel.title.set_fontsize("medium")
    for panel in axes[:, 0]:
        panel.set_ylabel("pruned: the lowest |w| (%)" if len(thresholds) > 3 else "pruned (%)")
    return fig


def draw_cost(folder: Path) -> Path:
    """Draws the seconds of several trainings in each way, and where the time of a block goes."""
    costs, parts = (rows.read_csv(folder / f"{name}.csv") for name in ("cost", "profile"))
    fig, axes = subplots(1, 2, (9.5, 1.6 + 0.4 * len(costs)))
    ways, shares = axes[0]
    ways.barh([row["way"] for row in costs], [row["seconds"] for row in costs])
    for y, row in enumerate(costs):
        text = f" {row['speed_up']:.2f} times, {100 * row['efficiency']:.0f} % a device"
        ways.text(row["seconds"], y, text, va="center", fontsize="small")
    ways.set_xlim(0, 2.1 * max(row["seconds"] for row in costs))
    many, length = costs[0]["trainings"], costs[0]["steps"]
    ways.set(xlabel="seconds", title=f"{many} trainings of {length} steps")
    shares.barh([row["part"] for row in parts], [100 * row["share"] for row in parts])
    shares.set(xlabel="% of the time of a block", title="where the time goes")
    for panel in (ways, shares):
        panel.invert_yaxis()
    return save(fig, folder, "cost")


def _place(row: Row) -> tuple:
    return row["method"], row.get("threshold"), row.get("rewind"), row["seed"]
