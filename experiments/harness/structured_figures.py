"""Figures of structured pruning: layer widths, and accuracy against cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import deviations, legend_beside, over_seeds, save, subplots
from experiments.harness.method_figures import label
from experiments.harness.records import read_spec

MARKERS = {"rewind": "o", "scratch_e": "s", "scratch_b": "D", "finetune": "^"}
RANKINGS = {"by_layer": "layer by layer", "over_layers": "over all layers"}
LINES = {"rewind": "-", "scratch_e": ":", "scratch_b": "--", "finetune": "-."}

Row = dict[str, Any]


def draw_widths(folder: Path) -> Path:
    """Draws the units of each layer before (outlines) and after the cut.

    Each share has a panel, and each method a colour. Bars show the mean over seeds; error bars are
    standard deviations.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    layers = [name for name in summary[0] if name.startswith("units/")]
    whole = [next(row for row in summary if row["method"] == "dense")[name] for name in layers]
    methods, shares = _methods(summary), _shares(summary)
    wide = 1.5 + len(layers) * (0.25 + 0.13 * len(methods))
    fig, axes = subplots(len(shares), 1, (max(wide, 5) + 1.5, 3.0 * len(shares) + 0.6))
    place = np.arange(len(layers))
    for panel, share in zip(axes.flat, shares, strict=True):
        panel.bar(place, whole, 0.9, fill=False, edgecolor="0.4", label="dense")
        for i, method in enumerate(methods):
            mine = [r for r in summary if (r["method"], r["rate"]) == (method, share)]
            units = {row["seed"]: [row[name] for name in layers] for row in mine}
            each = np.array(list(units.values()), float).T
            shift = (i - (len(methods) - 1) / 2) * 0.8 / len(methods)
            panel.bar(
                place + shift,
                each.mean(1),
                0.8 / len(methods),
                yerr=deviations(each.tolist()),
                color=f"C{i % 10}",
                label=label(method),
            )
        names = [name.removeprefix("units/") for name in layers]
        panel.set_xticks(place, names, rotation=35 if len(names) > 6 else 0, fontsize="small")
        panel.set_yscale("log")
        panel.set_ylim(bottom=0.8)
        panel.set(ylabel="units", title=f"{100 * share:g} % of the {_kind(spec)} kept")
        panel.grid(axis="y", alpha=0.3)
    legend_beside(axes.flat[0])
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: layers before and after, {_seeds(summary)}"
    )
    return save(fig, folder, "widths")


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy against multiply-adds and measured latency, relative to the dense net.

    Each method and training has a line, with a point for each share: the mean over seeds. Error
    bars are standard deviations. Nets from scratch that all methods share have one grey line.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    dense = [row for row in summary if row["method"] == "dense"]
    cut = [row for row in summary if row["method"] != "dense"]
    batches = [name.removeprefix("speed_up_") for name in summary[0] if "speed_up_" in name]
    methods = _methods(summary)
    adds = float(np.mean([row["multiply_adds"] for row in dense]))
    against = {"multiply-adds": lambda row: row["multiply_adds"] / adds} | {
        f"time of a batch of {batch}": lambda row, batch=batch: 1 / row[f"speed_up_{batch}"]
        for batch in batches
    }
    fig, axes = subplots(1, len(against), (4.6 * len(against) + 2, 4.8))
    for panel, (name, cost) in zip(axes.flat, against.items(), strict=True):
        for after in MARKERS:
            lines = {
                m: [r for r in cut if (r["method"], r["after"]) == (m, after)] for m in methods
            }
            if len({frozenset(row["ticket"] for row in mine) for mine in lines.values()}) == 1:
                lines = {"": lines[methods[0]]}  # one net whatever the method
            for i, (method, mine) in enumerate(lines.items()):
                colour = f"C{i % 10}" if method else "0.5"
                line_label = f"{label(method)}, {after}" if method else after
                if mine:
                    _line(panel, mine, cost, colour, after, line_label)
        accuracy = [100 * row["trained_accuracy"] for row in dense]
        level, spread = float(np.mean(accuracy)), deviations([accuracy])
        panel.axhline(level, color="0.4", lw=0.8)
        panel.errorbar(100, level, spread, color="0.2", marker="*", ms=9, capsize=2, label="dense")
        panel.set(xlabel=f"{name} (% of the dense net's)", ylabel="test accuracy, trained (%)")
        panel.grid(alpha=0.3)
    legend_beside(axes.flat[-1])
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}, cut {RANKINGS[spec['ranking']]}: {_seeds(summary)}"
    )
    return save(fig, folder, "accuracies")


def _line(panel: Any, mine: Sequence[Row], cost: Any, colour: str, after: str, name: str) -> None:
    """Draws the line of a method and training."""
    groups = [[row for row in mine if row["rate"] == share] for share in _shares(mine)]
    costs = [[100 * cost(row) for row in group] for group in groups]
    accuracy = [[100 * row["trained_accuracy"] for row in group] for group in groups]
    panel.errorbar(
        [np.mean(values) for values in costs],
        [np.mean(values) for values in accuracy],
        deviations(accuracy),
        deviations(costs),
        color=colour,
        ls=LINES[after],
        marker=MARKERS[after],
        ms=5,
        lw=1.2,
        capsize=2,
        label=name.replace("_", " "),
    )


def _methods(summary: Sequence[Row]) -> list[str]:
    return [m for m in dict.fromkeys(row["method"] for row in summary) if m != "dense"]


def _shares(summary: Sequence[Row]) -> list[float]:
    """The kept shares that were asked for, in falling order."""
    return sorted({row["rate"] for row in summary if row["method"] != "dense"}, reverse=True)


def _kind(spec: dict[str, Any]) -> str:
    return "multiply-adds" if spec["budget"] else "units"


def _seeds(summary: Sequence[Row]) -> str:
    return over_seeds(len({row["seed"] for row in summary}))
