"""Figures of network slimming: accuracy against remaining cost, and histograms of the scales."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import deviations, legend_beside, over_seeds, save, subplots
from experiments.harness.records import read_spec

BINS = 40
LEAST = 1e-6
"""Smaller scales, zeros included, are drawn at this value."""

Row = dict[str, Any]


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy against the remaining multiply-adds.

    Each strength has a colour, and each pass a point. Open marks are nets right after the cut,
    filled marks fine-tuned nets, and stars nets before the first cut. Points are means over seeds;
    error bars are standard deviations.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    fig, axes = subplots(1, 1, (8.4, 4.8))
    panel = axes[0, 0]
    for i, strength in enumerate(_strengths(summary)):
        mine = [row for row in summary if row["strength"] == strength]
        passes = [[r for r in mine if r["pass"] == n] for n in sorted({r["pass"] for r in mine})]
        style = {"color": f"C{i % 10}", "capsize": 2, "lw": 1.2}
        dense = [100 * row["sparse_accuracy"] for row in passes[0]]
        bar = deviations([dense])
        panel.errorbar(100, np.mean(dense), bar, marker="*", ms=10, **style)
        left = [[100 * row["multiply_adds_left"] for row in group] for group in passes]
        for when, face, line in (("cut", "white", ":"), ("tuned", style["color"], "-")):
            accuracy = [[100 * row[f"{when}_accuracy"] for row in group] for group in passes]
            panel.errorbar(
                [np.mean(values) for values in left],
                [np.mean(values) for values in accuracy],
                deviations(accuracy),
                deviations(left),
                marker="o",
                ms=6,
                mfc=face,
                ls=line,
                label=f"{_name(strength)}, {'right after the cut' if face == 'white' else 'tuned'}",
                **style,
            )
    panel.set(xlabel="multiply-adds left (% of the dense net's)", ylabel="test accuracy (%)")
    panel.grid(alpha=0.3)
    legend_beside(panel)
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"Slimming {spec['model']} on {spec['dataset']}: {over_seeds(seeds)}; "
        "stars: before the first cut",
        fontsize="medium",
    )
    return save(fig, folder, "accuracies")


def draw_scales(folder: Path) -> Path:
    """Draws histograms of |γ| over all layers and seeds after training with the penalty.

    Each pass has a panel. Channels below the dashed line (its mean over seeds) are removed.
    """
    spec = read_spec(folder)
    found = [row for row in rows.read_metrics(folder) if row["phase"] == "scales"]
    passes = sorted({row["pass"] for row in found})
    fig, axes = subplots(1, len(passes), (4.8 * len(passes) + 1.8, 4.2))
    values = [max(value, LEAST) for row in found for value in row["scales"]]
    bins = np.geomspace(0.9 * min(values), 1.1 * max(values), BINS + 1)
    for panel, number in zip(axes.flat, passes, strict=True):
        for i, strength in enumerate(_strengths(found)):
            mine = [r for r in found if (r["pass"], r["strength"]) == (number, strength)]
            seeds = {
                seed: np.concatenate([r["scales"] for r in mine if r["seed"] == seed])
                for seed in {row["seed"] for row in mine}
            }
            each = np.maximum(np.concatenate(list(seeds.values())), LEAST)
            panel.hist(
                each,
                bins,
                histtype="step",
                lw=1.5,
                color=f"C{i % 10}",
                weights=np.full(len(each), 1 / len(seeds)),
                label=_name(strength),
            )
            ends = [np.quantile(scales, 1 - mine[0]["rate"]) for scales in seeds.values()]
            panel.axvline(max(float(np.mean(ends)), LEAST), color=f"C{i % 10}", ls="--", lw=1)
        panel.set_xscale("log")
        panel.set(xlabel=r"$|\gamma|$", ylabel="channels of a net", title=f"pass {number}")
        panel.grid(alpha=0.3)
    legend_beside(axes.flat[-1])
    seeds_of = len({row["seed"] for row in found})
    fig.suptitle(
        f"Scales of {spec['model']} on {spec['dataset']} before each cut: "
        f"{over_seeds(seeds_of, 'mean')}; dashed: channels below it are removed",
        fontsize="medium",
    )
    return save(fig, folder, "scales")


def _strengths(found: Sequence[Row]) -> list[float]:
    return list(dict.fromkeys(row["strength"] for row in found))


def _name(strength: float) -> str:
    return f"penalty {strength:g}" if strength else "no penalty"
