"""Figures of sparse training: accuracies, the course of the training, and layers over time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import (
    deviation,
    deviations,
    legend_beside,
    logarithmic,
    over_seeds,
    save,
    subplots,
)
from experiments.harness.records import read_spec

Row = dict[str, Any]
MOST_LAYERS = 6
"""Layers that have a panel; of deeper nets, equally spaced ones."""


def _methods(found: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in found))


def _style(methods: Sequence[str], method: str) -> dict[str, Any]:
    i = methods.index(method)
    return {"color": f"C{i % 10}", "ls": "-" if i < 10 else "--"}


def _title(folder: Path, what: str) -> str:
    spec = read_spec(folder)
    many = spec["seeds"]
    return f"{what}: {spec['model']} on {spec['dataset']}, {over_seeds(many)}"


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy against the method, a colour a density, and of rewound masks beside it.

    Bars are means over seeds and whiskers sample standard deviations; the dense net is a line.
    """
    summary = rows.read_summary(folder)
    pruned = [row for row in summary if row["method"] != "dense"]
    methods = _methods(pruned)
    density = sorted({row["density"] for row in pruned}, reverse=True)
    checks = [check for check in ("", "rewound") if any(_is(row, check) for row in pruned)]
    fig, axes = subplots(
        len(checks) or 1, 1, (max(8, 1.1 * len(methods)), 3.4 * max(1, len(checks)))
    )
    for panel, check in zip(axes.flat, checks, strict=False):
        there = [m for m in methods if any(_is(row, check) for row in pruned if row["method"] == m)]
        for i, kept in enumerate(density):
            groups = [
                [
                    100 * row["trained_accuracy"]
                    for row in pruned
                    if row["method"] == method and row["density"] == kept and _is(row, check)
                ]
                for method in there
            ]
            at = np.arange(len(there)) + 0.6 * ((i + 0.5) / len(density) - 0.5)
            panel.errorbar(
                at,
                [np.mean(g) for g in groups],
                deviations(groups),
                fmt="o",
                color=f"C{i}",
                capsize=3,
                label=f"{100 * kept:g} % of the weights",
            )
        dense = [100 * row["trained_accuracy"] for row in summary if row["method"] == "dense"]
        if dense:
            panel.axhline(np.mean(dense), color="0.4", lw=0.9, label="dense net")
        panel.set_xticks(
            range(len(there)), [m.replace("+", "\n+").replace("_", "\n") for m in there]
        )
        panel.set_ylabel("test accuracy (%)")
        panel.set_title(
            "last mask trained alone, from the first weights" if check else "sparse net",
            fontsize="medium",
        )
        panel.grid(axis="y", alpha=0.3)
        legend_beside(panel)
    fig.suptitle(_title(folder, "Sparse training"))
    return save(fig, folder, "accuracies")


def _is(row: Row, check: str) -> bool:
    return (row.get("check") or "") == check


def draw_training(folder: Path) -> Path:
    """Draws, over the training steps at the lowest density, four quantities of each method.

    Training loss, validation accuracy, the weights that were ever kept, and the weights grown so
    far. Lines are means over seeds, bands sample standard deviations.
    """
    found, lowest = _of_lowest_density(folder)
    methods = _methods(found)
    panels: list[tuple[str, Callable[[Row], float]]] = [
        ("training loss (nats)", lambda row: row["train_loss"]),
        ("validation accuracy (%)", lambda row: 100 * row["accuracy"]),
        ("ever kept (% of all weights)", lambda row: 100 * row["explored"]),
        ("weights grown so far", lambda row: row["grown"]),
    ]
    fig, axes = subplots(2, 2, (12, 7))
    for panel, (head, value) in zip(axes.flat, panels, strict=True):
        for method in methods:
            _band(panel, [row for row in found if row["method"] == method], value, methods)
        panel.set(xlabel="training step", ylabel=head)
        panel.grid(alpha=0.3)
    axes.flat[0].set_yscale("log")
    accuracies = [100 * row["accuracy"] for row in found]
    axes.flat[1].set_ylim(np.percentile(accuracies, 15) - 1, max(accuracies) + 0.3)
    axes.flat[3].set_yscale("symlog", linthresh=1000)
    legend_beside(axes.flat[1])
    fig.suptitle(_title(folder, f"Training to {100 * lowest:g} % of the weights"))
    return save(fig, folder, "training")


def draw_layers(folder: Path) -> Path:
    """Draws the density of each layer over the training steps at the lowest density."""
    found, lowest = _of_lowest_density(folder)
    found = [row for row in found if row["method"] != "dense"]
    methods = _methods(found)
    leaves = [name for name in found[0] if name.startswith("kept/")] if found else []
    if len(leaves) > MOST_LAYERS:
        leaves = [leaves[i] for i in np.linspace(0, len(leaves) - 1, MOST_LAYERS).astype(int)]
    sizes = {
        name.replace("density/", "kept/"): row[name.replace("density/", "kept/")] / row[name]
        for row in rows.read_summary(folder)
        for name in row
        if name.startswith("density/") and row[name]
    }
    fig, axes = subplots(1, max(1, len(leaves)), (3.2 * max(2, len(leaves)) + 1.5, 3.6))
    for panel, leaf in zip(axes.flat, leaves, strict=False):
        for method in methods:
            mine = [row for row in found if row["method"] == method]
            _band(panel, mine, _share(leaf, sizes[leaf]), methods)
        panel.set(xlabel="training step", title=leaf.removeprefix("kept/").removesuffix("/kernel"))
        logarithmic(panel)
        panel.grid(alpha=0.3)
    axes.flat[0].set_ylabel("weights left in the layer (%)")
    legend_beside(axes.flat[-1])
    fig.suptitle(_title(folder, f"Layers in training to {100 * lowest:g} % of the weights"))
    return save(fig, folder, "layers")


def _share(leaf: str, size: float) -> Callable[[Row], float]:
    """The share of a layer's weights that are kept, in %."""
    return lambda row: 100 * row[leaf] / size


def _of_lowest_density(folder: Path) -> tuple[list[Row], float]:
    """The metrics rows of the methods' own trainings: of the dense net and the lowest density."""
    found = [row for row in rows.read_metrics(folder) if row["phase"].startswith("train-")]
    lowest = min(row["density"] for row in found)
    return [row for row in found if row["density"] == lowest or row["method"] == "dense"], lowest


def _band(
    panel: Any, mine: Sequence[Row], value: Callable[[Row], float], methods: Sequence[str]
) -> None:
    """A line of means over seeds, with a band of one sample standard deviation."""
    steps = sorted({row["step"] for row in mine})
    groups = [[value(row) for row in mine if row["step"] == step] for step in steps]
    mean = np.array([np.mean(g) for g in groups])
    spread = np.array([deviation(g) for g in groups])
    style = _style(methods, mine[0]["method"])
    panel.plot(steps, mean, lw=1.2, label=mine[0]["method"], **style)
    panel.fill_between(steps, mean - spread, mean + spread, color=style["color"], alpha=0.15, lw=0)
