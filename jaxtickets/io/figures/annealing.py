"""The annealing search, and the masks that it is compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.io import rows
from jaxtickets.io.figures.canvas import save, subplots, words
from jaxtickets.io.records import read_spec

LABELS = {
    "ticket": "annealed ticket",
    "ticket_last": "annealed, last mask",
    "random": "random",
    "random_layerwise": "random, ticket's\nlayer counts",
    "magnitude": "magnitude,\nrewound",
    "snip": "SNIP",
    "dense": "dense",
}


def draw_search(folder: Path) -> Path:
    """Energy, best energy and validation score of every chain; temperature, swap size, acceptance.

    A colour is a density; thin lines are chains.
    """
    spec = read_spec(folder)
    seen = [row for row in rows.read_metrics(folder) if row["phase"] == "search"]
    chains: dict[tuple, list[dict[str, Any]]] = {}
    for row in seen:
        chains.setdefault((row["density"], row["seed"], row["chain"]), []).append(row)
    densities = sorted({density for density, _, _ in chains}, reverse=True)
    fig, axes = subplots(2, 3, (12, 6.5))
    panels = (
        ("energy", f"energy ({words(spec['measure'])})"),
        ("best_energy", "best energy so far"),
        ("validation", "validation score of the chosen mask"),
        ("temperature", "temperature"),
        ("size", "swap size k (weights or units)"),
        ("accepted", "accepted swaps (share)"),
    )
    for panel, (field, label) in zip(axes.flat, panels, strict=True):
        for (density, _, _), chain in chains.items():
            colour = f"C{densities.index(density)}"
            steps = [row["step"] for row in chain]
            # a swap within one layer has that layer's size: points, since no curve joins them
            style = {"marker": ".", "ls": "", "ms": 3} if field == "size" else {"lw": 0.9}
            panel.plot(steps, [row[field] for row in chain], color=colour, alpha=0.7, **style)
        panel.set(xlabel="step", ylabel=label)
        if field in ("temperature", "size"):
            panel.set_yscale("log")
    for i, density in enumerate(densities):
        axes.flat[0].plot([], [], color=f"C{i}", label=f"density {density:g}")
    axes.flat[0].legend(frameon=False)
    what = f"{spec['model']} on {spec['dataset']}"
    fig.suptitle(
        f"Annealing over masks: {what}, {len(chains)} chains, values every {spec['chunk']} steps"
    )
    return save(fig, folder, "search")


def draw_accuracies(folder: Path) -> Path:
    """Test accuracy of each method, untrained and trained: mean, standard deviation, each seed."""
    summary = rows.read_summary(folder)
    spec = read_spec(folder)
    methods = [m for m in LABELS if any(row["method"] == m for row in summary)]
    densities = sorted({row["density"] for row in summary if row["method"] != "dense"})[::-1]
    fig, axes = subplots(1, 2, (1.6 * len(methods) + 4, 4.8))
    for panel, when in zip(axes.flat, ("untrained", "trained"), strict=True):
        for i, density in enumerate(densities):
            shift = (i - (len(densities) - 1) / 2) * 0.8 / len(densities)
            for x, method in enumerate(methods):
                wanted = 1.0 if method == "dense" else density
                if method == "dense" and i:
                    continue
                values = [
                    100 * row[f"{when}_accuracy"]
                    for row in summary
                    if row["method"] == method and row["density"] == wanted
                ]
                place = x if method == "dense" else x + shift
                _point(panel, place, values, "0.3" if method == "dense" else f"C{i}")
        panel.set_xticks(range(len(methods)), [LABELS[m] for m in methods], rotation=35, ha="right")
        panel.set(ylabel=f"test accuracy, {when} (%)", title=f"{when}")
        panel.grid(axis="y", alpha=0.3)
    for i, density in enumerate(densities):
        axes.flat[0].plot([], [], "o", color=f"C{i}", label=f"density {density:g}")
    axes.flat[0].legend(frameon=False)
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: mean and standard deviation of {seeds} seeds, "
        "small dots: the seeds"
    )
    return save(fig, folder, "accuracies")


def draw_layers(folder: Path) -> Path:
    """Density of each layer under each method: mean and standard deviation over seeds."""
    summary = rows.read_summary(folder)
    spec = read_spec(folder)
    layers = [name for name in summary[0] if name.startswith("density/")]
    methods = [m for m in LABELS if m != "dense" and any(r["method"] == m for r in summary)]
    densities = sorted({row["density"] for row in summary if row["method"] != "dense"})[::-1]
    pruned = [row for row in summary if row["method"] != "dense"]
    fig, axes = subplots(1, len(densities), (4.5 * len(densities) + 2, 4.2))
    for panel, density in zip(axes.flat, densities, strict=True):
        for i, method in enumerate(methods):
            members = [r for r in summary if r["method"] == method and r["density"] == density]
            share = np.array([[r[name] for name in layers] for r in members])
            place = np.arange(len(layers)) + (i - (len(methods) - 1) / 2) * 0.8 / len(methods)
            bars = share.std(0, ddof=1) if len(share) > 1 else None
            label = LABELS[method].replace("\n", " ")
            panel.bar(place, share.mean(0), 0.8 / len(methods), yerr=bars, label=label)
        names = [name.removeprefix("density/").removesuffix("/kernel") for name in layers]
        panel.set_xticks(range(len(layers)), names)
        panel.set(ylabel="kept weights (share of the layer)", title=f"density {density:g}")
        panel.axhline(density, color="0.5", lw=0.8, ls="--")
        panel.set_ylim(0, 1.15 * max(row[name] for row in pruned for name in layers))
    axes.flat[-1].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    what = f"{spec['model']} on {spec['dataset']}"
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"Where the weights are kept: {what}\n"
        f"mean and standard deviation of {seeds} seeds; dashed: all layers together",
        fontsize="medium",
    )
    return save(fig, folder, "layers")


def _point(panel: Any, x: float, values: Sequence[float], colour: str) -> None:
    """Mean with its standard deviation, and the values beside it."""
    if not values:
        return
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    panel.errorbar(x, np.mean(values), deviation, fmt="o", color=colour, capsize=4, ms=6)
    panel.plot([x + 0.12] * len(values), values, ".", color=colour, alpha=0.5, ms=5)
