"""A figure of the training losses of masks in their first steps."""

from pathlib import Path

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import (
    densities,
    legend_beside,
    logarithmic,
    over_seeds,
    save,
    subplots,
)
from experiments.harness.method_figures import label, ordered
from experiments.harness.records import read_spec


def draw_first_steps(folder: Path) -> Path:
    """Draws training loss against the step, with mean and standard deviation over seeds.

    Each density has a panel.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    seen = [row for row in rows.read_metrics(folder) if row["phase"] == "first"]
    left = densities(summary)
    fig, axes = subplots(1, len(left), (5.5 * len(left) + 2.5, 4.8))
    for panel, density in zip(axes.flat, left, strict=True):
        for i, method in enumerate(ordered(summary)):
            wanted = 1.0 if method == "dense" else density
            mine = [r for r in seen if r["method"] == method and r["density"] == wanted]
            if not mine:
                continue
            steps = sorted({row["step"] for row in mine})
            losses = np.array([[r["train_loss"] for r in mine if r["step"] == s] for s in steps])
            mean = losses.mean(1)
            spread = losses.std(1, ddof=1) if losses.shape[1] > 1 else np.zeros_like(mean)
            colour = "0.3" if method == "dense" else f"C{i % 10}"
            name = label(method).replace("\n", " ")
            panel.plot(steps, mean, color=colour, lw=1.2, label=name)
            low = np.maximum(mean - spread, losses.min(1))  # the logarithm needs values above zero
            panel.fill_between(steps, low, mean + spread, color=colour, alpha=0.15, lw=0)
        logarithmic(panel)
        panel.set(xlabel="training step", ylabel="training loss (nats)")
        panel.set_title(f"density {density:g}")
        panel.grid(alpha=0.3)
    legend_beside(axes.flat[-1])
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: the first {spec['first_steps']} steps\n"
        f"means of {spec['mean_of']} steps; {over_seeds(seeds)}",
        fontsize="medium",
    )
    return save(fig, folder, "first_steps")
