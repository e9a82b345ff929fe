"""A figure of pruning and retraining, with a panel for each net."""

from pathlib import Path

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import deviations, over_seeds, save, subplots
from experiments.harness.records import read_spec


def draw_pruning(folder: Path) -> Path:
    """Draws accuracy against the pruned fraction (a line per net) and by round.

    In the panels by round, which a single round doesn't need, each threshold has a line. Points are
    means over seeds; error bars are standard deviations.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    models = list(dict.fromkeys(row["model"] for row in summary))
    last = max(row["round"] for row in summary)
    panels = 1 + len(models) * (last > 1)
    wide = min(panels, 3)
    high = -(-panels // wide)
    fig, axes = subplots(high, wide, (5.4 * wide, 4.6 * high))
    for empty in axes.flat[panels:]:
        empty.set_axis_off()
    first = axes.flat[0]
    for i, model in enumerate(models):
        mine = [row for row in summary if row["model"] == model]
        dense = [row for row in mine if row["method"] == "dense"]
        values = sorted({row["threshold"] for row in mine if row["method"] != "dense"})
        ends = [
            dense,
            *([r for r in mine if r["threshold"] == t and r["round"] == last] for t in values),
        ]
        place = [100 * (1 - np.mean([row["density"] for row in group])) for group in ends]
        accuracy = [[100 * row["trained_accuracy"] for row in group] for group in ends]
        spread = deviations(accuracy)
        mean = [np.mean(a) for a in accuracy]
        first.errorbar(place, mean, spread, marker="o", ms=4, lw=1.2, capsize=2, label=model)
        if last == 1:
            continue
        panel = axes.flat[1 + i]
        for j, value in enumerate(values):
            rounds = [dense, *([r for r in mine if r["threshold"] == value and r["round"] == n]
                      for n in range(1, last + 1))]  # fmt: skip
            mean = [100 * np.mean([row["trained_accuracy"] for row in group]) for group in rounds]
            left = 100 * np.mean([row["density"] for row in rounds[-1]])
            name = f"{value:g}: {left:.2g} % left"
            panel.plot(range(last + 1), mean, ".-", color=f"C{j % 10}", lw=1.2, label=name)
        panel.set(xlabel="round (0: dense)", ylabel="test accuracy, retrained (%)", title=model)
        panel.locator_params(axis="x", integer=True)
        panel.legend(frameon=False, fontsize="small", title="threshold")
        panel.grid(alpha=0.3)
    first.set(xlabel="pruned weights (%)", ylabel="test accuracy, retrained (%)")
    first.set_title(f"after {last} round{'s' * (last > 1)}, a point per threshold")
    first.legend(frameon=False)
    first.grid(alpha=0.3)
    seeds = len({row["seed"] for row in summary})
    rule = {"quantile": "quantile of |w|", "deviation": "standard deviations of the layer"}
    shown = f"mean ± standard deviation{' (first panel), mean (others)' * (last > 1)}"
    fig.suptitle(
        f"Pruned and retrained on {spec['dataset']}, thresholds by "
        f"{rule.get(spec['rule'], 'quantile of signed w')}: "
        f"{over_seeds(seeds, shown)}"
    )
    return save(fig, folder, "pruning")
