"""Figures that compare methods: the accuracies of their masks, and the weights of each layer."""

from collections.abc import Sequence
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
    weights_left,
)
from experiments.harness.records import read_spec

LABELS = {
    "ticket": "ticket found",
    "ticket_last": "annealed, last mask",
    "random": "random",
    "random_layerwise": "random, ticket's\nlayer counts",
    "magnitude": "magnitude,\nrewound",
    "snip": "SNIP",
    "dense": "dense",
}
NAMES = {
    "granet": "GraNet",
    "fisher": "Fisher",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "obd": "OBD",
    "erk": "ERK",
}
NAMES |= {"l1": "L1", "l2": "L2", "fpgm": "FPGM"}


CHECKS = {
    "": ("-", "o"),
    "inverted": ("-.", "v"),
    "shuffled": (":", "x"),
    "reinit": ("--", "s"),
}
"""Line style and marker of each check of a method; solid for the method's own."""
SAME_COUNTS = ("shuffled", "reinit")
"""Checks that keep as many weights in each layer as the method itself."""

Kind = tuple[str, str]
"""A method and a check of it; the check is empty for the method's own rows."""


def label(method: str, check: str = "") -> str:
    """The name of a method, or of a check of it, in figures."""
    if check or method not in LABELS:
        label = " ".join(NAMES.get(word, word) for word in _words(method))
        return f"{label}, {check}" if check else label
    return LABELS[method]


def _words(method: str) -> list[str]:
    return method.replace("edge_popup", "edge-popup").split("_")


def ordered(summary: Sequence[dict[str, Any]]) -> list[str]:
    """The methods of a summary: first those of `LABELS`, then the others as they appear."""
    there = dict.fromkeys(row["method"] for row in summary)
    return [m for m in LABELS if m in there] + [m for m in there if m not in LABELS]


def kinds(summary: Sequence[dict[str, Any]]) -> list[Kind]:
    """The methods of a summary, `ordered`, each followed by its checks."""
    there = dict.fromkeys(_kind(row) for row in summary)
    return [kind for method in ordered(summary) for kind in there if kind[0] == method]


def draw_against_density(folder: Path) -> Path:
    """Draws test accuracy, untrained and trained, against the weights left, a line for each method.

    Points are means over seeds; error bars are standard deviations. Checks of a method have its
    colour and another line style.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    methods = [method for method in ordered(summary) if method != "dense"]
    fig, axes = subplots(1, 2, (14, 5))
    for panel, when in zip(axes.flat, ("untrained", "trained"), strict=True):
        found = [row for row in summary if row.get(f"{when}_accuracy") is not None]
        for kind in kinds(found):
            method, check = kind
            if method == "dense":
                continue
            mine = [row for row in found if _kind(row) == kind]
            left = sorted({row["density"] for row in mine})
            groups = [
                [100 * row[f"{when}_accuracy"] for row in mine if row["density"] == density]
                for density in left
            ]
            line, marker = CHECKS[check]
            panel.errorbar(
                [100 * density for density in left],
                [np.mean(g) for g in groups],
                deviations(groups),
                color=f"C{methods.index(method) % 10}",
                ls=line,
                marker=marker,
                ms=4,
                lw=1.2,
                capsize=2,
                label=label(*kind).replace("\n", " "),
            )
        dense = [
            100 * row[f"{when}_accuracy"]
            for row in summary
            if row["method"] == "dense" and row.get(f"{when}_accuracy") is not None
        ]
        if dense:
            panel.axhline(np.mean(dense), color="0.4", lw=0.8, label="dense")
        weights_left(panel, [row for row in summary if row["method"] != "dense"])
        panel.set(ylabel=f"test accuracy, {when} (%)", title=when)
        means = [line.get_ydata()[i] for line in panel.lines for i in range(len(line.get_ydata()))]
        if when == "trained" and means:  # one mask that doesn't train must not hide the others
            least, usual, most = np.quantile(means, (0, 0.1, 1))
            panel.set_ylim(bottom=max(least - 1, usual - 2 * (most - usual) - 0.5))
    legend_beside(axes.flat[-1], *axes.flat[0].get_legend_handles_labels())
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(f"{spec['model']} on {spec['dataset']}: {over_seeds(seeds)}")
    return save(fig, folder, "accuracies")


def draw_lost(folder: Path) -> Path:
    """Draws the kept fraction of each layer for each method, and a cross if the layer is empty.

    Fractions are means over seeds. A cross means that the layer is empty in at least one seed.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    layers = [name for name in summary[0] if name.startswith("density/")]
    shown = _counted(summary)
    left = densities(summary)
    width, height = 1.3 + 0.45 * len(left), 1.2 + 0.32 * len(layers)
    columns = min(len(shown), 5)
    lines = -(-len(shown) // columns)
    fig, axes = subplots(lines, columns, (1.5 + width * columns, 0.6 + height * lines))
    for panel, kind in zip(axes.flat, shown, strict=False):
        share = np.full((len(layers), len(left)), np.nan)
        for x, density in enumerate(left):
            mine = [row for row in summary if _kind(row) == kind and row["density"] == density]
            for y, layer in enumerate(layers if mine else ()):
                kept = [row[layer] for row in mine]
                share[y, x] = np.mean(kept)
                if min(row[layer.replace("density/", "kept/")] for row in mine) == 0:
                    panel.plot(x, y, "x", color="C3", ms=8, mew=2)
        with np.errstate(divide="ignore"):
            image = panel.imshow(np.log10(share), cmap="viridis", vmin=-5, vmax=0, aspect="auto")
        panel.set_xticks(
            range(len(left)),
            [f"{100 * d:g}" for d in left],
            rotation=90,
            fontsize="small",
        )
        names = [name.removeprefix("density/").removesuffix("/kernel") for name in layers]
        panel.set_yticks(range(len(layers)), names, fontsize="small")
        panel.set_title(label(*kind).replace("\n", " "), fontsize="small")
    for panel in axes.flat[len(shown) :]:
        panel.axis("off")
    for panel in axes[-1]:
        panel.set_xlabel("weights left (%)")
    bar = fig.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("log10 of the kept fraction")
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: kept fraction of each layer; cross: layer is empty",
        fontsize="medium",
    )
    return save(fig, folder, "lost")


def draw_accuracies(folder: Path) -> Path:
    """Draws the test accuracy of each method, untrained and trained: mean, deviation, each seed."""
    summary = rows.read_summary(folder)
    spec = read_spec(folder)
    shown = kinds(summary)
    left = densities(summary)
    fig, axes = subplots(1, 2, (1.6 * len(shown) + 4, 4.8))
    for panel, when in zip(axes.flat, ("untrained", "trained"), strict=True):
        for i, density in enumerate(left):
            shift = (i - (len(left) - 1) / 2) * 0.8 / len(left)
            for x, kind in enumerate(shown):
                dense = kind[0] == "dense"
                wanted = 1.0 if dense else density
                if dense and i:
                    continue
                values = [
                    100 * row[f"{when}_accuracy"]
                    for row in summary
                    if _kind(row) == kind and row["density"] == wanted
                ]
                _point(panel, x if dense else x + shift, values, "0.3" if dense else f"C{i}")
        panel.set_xticks(
            range(len(shown)), [label(*kind) for kind in shown], rotation=35, ha="right"
        )
        panel.set(ylabel=f"test accuracy, {when} (%)", title=f"{when}")
        panel.grid(axis="y", alpha=0.3)
    for i, density in enumerate(left):
        axes.flat[0].plot([], [], "o", color=f"C{i}", label=f"density {density:g}")
    axes.flat[0].legend(frameon=False)
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: {over_seeds(seeds)}, small dots: each seed"
    )
    return save(fig, folder, "accuracies")


def draw_layers(folder: Path) -> Path:
    """Draws the density of each layer for each method: mean and standard deviation over seeds."""
    summary = rows.read_summary(folder)
    spec = read_spec(folder)
    layers = [name for name in summary[0] if name.startswith("density/")]
    shown = _counted(summary)
    left = densities(summary)
    pruned = [row for row in summary if row["method"] != "dense"]
    fig, axes = subplots(1, len(left), (4.5 * len(left) + 2, 4.2))
    for panel, density in zip(axes.flat, left, strict=True):
        for i, kind in enumerate(shown):
            members = [row for row in summary if _kind(row) == kind and row["density"] == density]
            share = np.array([[r[name] for name in layers] for r in members])
            place = np.arange(len(layers)) + (i - (len(shown) - 1) / 2) * 0.8 / len(shown)
            bars = share.std(0, ddof=1) if len(share) > 1 else None
            name = label(*kind).replace("\n", " ")
            panel.bar(place, share.mean(0), 0.8 / len(shown), yerr=bars, label=name)
        names = [name.removeprefix("density/").removesuffix("/kernel") for name in layers]
        panel.set_xticks(range(len(layers)), names)
        panel.set(ylabel="kept weights (share of the layer)", title=f"density {density:g}")
        panel.axhline(density, color="0.5", lw=0.8, ls="--")
        panel.set_ylim(0, 1.15 * max(row[name] for row in pruned for name in layers))
    legend_beside(axes.flat[-1])
    what = f"{spec['model']} on {spec['dataset']}"
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"Where the weights are kept: {what}\n"
        f"{over_seeds(seeds)}; dashed: density of the whole net",
        fontsize="medium",
    )
    return save(fig, folder, "layers")


def _point(panel: Any, x: float, values: Sequence[float], colour: str) -> None:
    """Draws the mean with its standard deviation, and the values beside it."""
    if not values:
        return
    panel.errorbar(x, np.mean(values), deviations([values]), fmt="o", color=colour, capsize=4, ms=6)
    panel.plot([x + 0.12] * len(values), values, ".", color=colour, alpha=0.5, ms=5)


def _kind(row: dict[str, Any]) -> Kind:
    return row["method"], row.get("check") or ""


def _counted(summary: Sequence[dict[str, Any]]) -> list[Kind]:
    """The methods and checks whose layer counts aren't those of another row."""
    return [kind for kind in kinds(summary) if kind[0] != "dense" and kind[1] not in SAME_COUNTS]
