"""Figures of searches under one budget: accuracy, cost, and where masks keep weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import pixel_maps, rows
from experiments.harness.canvas import over_seeds, reach, save, subplots, weights_left, words
from experiments.harness.method_figures import label, ordered
from experiments.harness.records import read_spec
from jaxtickets import masks
from jaxtickets.types import Mask, Prunable

BARS = "bars from minimum to maximum"
DOWN_TO = 3.0
"""The accuracy axis reaches down to five times these points below the best mean, at most."""


def draw_accuracy_over_density(folder: Path) -> Path:
    """Draws trained accuracy against weights left, a line per method; bars: minimum to maximum."""
    summary = _largest(rows.read_summary(folder))
    fig, axes = subplots(1, 1, (9, 5.2))
    panel = axes[0, 0]
    masked = [row for row in summary if row["method"] != "dense"]
    for i, method in enumerate(_methods(summary)):
        mine = [row for row in masked if row["method"] == method]
        densities = sorted({row["density"] for row in mine}, reverse=True)
        groups = [
            [100 * r["trained_accuracy"] for r in mine if r["density"] == d] for d in densities
        ]
        mean, bars = reach(groups)
        panel.errorbar(
            [100 * d * 1.012 ** (i - 5) for d in densities],
            mean,
            bars,
            **_line(i, method),
            capsize=2,
        )
    dense = [100 * row["trained_accuracy"] for row in summary if row["method"] == "dense"]
    if dense:
        panel.axhline(np.mean(dense), color="0.4", ls=":", label="dense")
    weights_left(panel, masked)
    worst = min(np.mean(_of(masked, m, d)) for m, d in _cells(masked))
    best = max(np.mean(_of(masked, m, d)) for m, d in _cells(masked))
    panel.set_ylim(max(worst - 1, best - 5 * DOWN_TO), None)
    panel.set_ylabel("test accuracy, trained (%)")
    panel.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    fig.suptitle(_title(folder, summary))
    return save(fig, folder, "accuracy_over_density")


def draw_trained_over_untrained(folder: Path) -> Path:
    """Draws trained against untrained accuracy, with a point per mask and a panel per density."""
    summary = _largest(rows.read_summary(folder))
    densities = sorted({row["density"] for row in summary if row["method"] != "dense"})[::-1]
    fig, axes = subplots(1, len(densities), (4.6 * len(densities) + 2.2, 4.4))
    for panel, density in zip(axes.flat, densities, strict=True):
        for i, method in enumerate(_methods(summary)):
            mine = [r for r in summary if (r["method"], r["density"]) == (method, density)]
            line = _line(i, method) | {"ls": ""}
            panel.plot(
                [100 * row["untrained_accuracy"] for row in mine],
                [100 * row["trained_accuracy"] for row in mine],
                **line,
            )
        panel.set(xlabel="test accuracy, untrained (%)", title=f"{100 * density:g} % left")
        panel.set_ylabel("test accuracy, trained (%)")
        panel.grid(alpha=0.3)
    axes.flat[-1].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    fig.suptitle(_title(folder, summary, "a point per mask"))
    return save(fig, folder, "trained_over_untrained")


def draw_accuracy_over_budget(folder: Path) -> Path:
    """Draws trained accuracy against the cost of a mask in dense trainings, a panel per density.

    Methods are shifted by up to 10 % of the cost, so that those of the same cost don't hide each
    other.
    """
    summary = rows.read_summary(folder)
    densities = sorted({row["density"] for row in summary if row["method"] != "dense"})[::-1]
    fig, axes = subplots(1, len(densities), (4.6 * len(densities) + 2.2, 4.4))
    for panel, density in zip(axes.flat, densities, strict=True):
        methods = _methods(summary)
        for i, method in enumerate(methods):
            aside = i / max(len(methods) - 1, 1) - 0.5
            mine = [r for r in summary if (r["method"], r["density"]) == (method, density)]
            costs = sorted({row["dense_trainings"] for row in mine})
            groups = [
                [100 * r["trained_accuracy"] for r in mine if r["dense_trainings"] == cost]
                for cost in costs
            ]
            if groups:
                mean, bars = reach(groups)
                apart = [cost * 1.2**aside + 0.03 * aside for cost in costs]
                panel.errorbar(apart, mean, bars, **_line(i, method), capsize=2)
        panel.set_xscale("symlog", linthresh=0.1)
        panel.set(
            xlabel="cost of the mask (dense trainings)",
            title=f"{100 * density:g} % left",
        )
        panel.set_ylabel("test accuracy, trained (%)")
        panel.grid(alpha=0.3)
    axes.flat[-1].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    fig.suptitle(_title(folder, summary))
    return save(fig, folder, "accuracy_over_budget")


def draw_where(
    folder: Path, entries: Sequence[Any], prunable: Prunable, image: tuple[int, ...]
) -> Path | None:
    """Draws the kept weights of each input pixel, and each layer's density.

    Returns None and draws nothing if no layer has an input for each pixel.

    Args:
      folder: the run's folder.
      entries: the trainings; those of the lowest density and the first seed are drawn.
      prunable: the leaves with masks.
      image: `(h, w, c)`, the shape of an image.
    """
    least = min(entry.name["density"] for entry in entries)
    first = min(entry.name["seed"] for entry in entries)
    chosen: dict[str, Mask] = {
        entry.name["method"]: entry.start.mask
        for entry in entries
        if (entry.name["density"], entry.name["seed"]) == (least, first)
    }
    pictures = {}
    for method, mask in chosen.items():
        picture = pixel_maps.kept(mask, prunable, image)
        if picture is None:
            return None
        shares = masks.densities(mask, prunable)
        said = " / ".join(f"{100 * float(share):.3g}" for share in shares.values())
        pictures[f"{label(method).replace(chr(10), ' ')}\nlayers: {said} %"] = picture
    fig = pixel_maps.draw(pictures)
    spec = read_spec(folder)
    fig.suptitle(f"{spec['model']} on {spec['dataset']}, {100 * least:g} % left, seed {first}")
    return save(fig, folder, "where")


def _largest(summary: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the largest budget, and those without a budget."""
    budgets = [row["budget"] for row in summary if row.get("budget")]
    return [row for row in summary if row.get("budget") in (None, max(budgets, default=None))]


def _methods(summary: Sequence[dict[str, Any]]) -> list[str]:
    return [method for method in ordered(summary) if method != "dense"]


def _cells(summary: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    return list(dict.fromkeys((row["method"], row["density"]) for row in summary))


def _of(summary: Sequence[dict[str, Any]], method: str, density: float) -> list[float]:
    return [
        100 * row["trained_accuracy"]
        for row in summary
        if (row["method"], row["density"]) == (method, density)
    ]


def _line(i: int, method: str) -> dict[str, Any]:
    """The style of a method: annealing and sparse training have solid, thick lines."""
    ours = method.startswith(("annealed", "rewired", "granet"))
    return {
        "label": words(label(method)).replace("\n", " "),
        "color": f"C{i % 10}",
        "marker": "o" if ours else "sv^<>Dx*P"[i % 9],
        "ls": "-" if ours else "--",
        "lw": 2.0 if ours else 1.0,
        "ms": 5,
        "alpha": 1.0 if ours else 0.8,
    }


def _title(folder: Path, summary: Sequence[dict[str, Any]], marks: str = BARS) -> str:
    spec = read_spec(folder)
    seeds = len({row["seed"] for row in summary})
    return f"{spec['model']} on {spec['dataset']}: {over_seeds(seeds, marks)}"
