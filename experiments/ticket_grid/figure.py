"""Heat maps of accuracy by pruning threshold and rewind epoch."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import save, subplots
from experiments.harness.records import read_spec


def draw_grid(folder: Path) -> Path:
    """Draws the tickets' test accuracy, and its difference from dense, shuffled mask and reinit.

    A cell shows the mean and the sample standard deviation over seeds. Differences are taken within
    seeds.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
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
    height = 1.6 + 0.4 * len(thresholds)
    fig, axes = subplots(1, 4, (3.2 + 4 * (0.9 + 0.75 * len(rewinds)), height))
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
    axes[0, 0].set_ylabel("pruned: the lowest |w| (%)")
    dense = [row["trained_accuracy"] for row in summary if row["method"] == "dense"]
    fig.suptitle(
        f"One-shot tickets: {spec['model']} on {spec['dataset']}, mean ± standard deviation of "
        f"{len(seeds)} seeds; dense {100 * np.mean(dense):.2f} %"
    )
    return save(fig, folder, "grid")


def _place(row: dict[str, Any]) -> tuple:
    return row["method"], row.get("threshold"), row.get("rewind"), row["seed"]
