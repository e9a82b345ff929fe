"""Methods side by side: accuracy of their masks, and where these keep weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtickets.figures.canvas import save, subplots, weights_left, words
from jaxtickets.io import rows
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
NAMES = {"snip": "SNIP", "grasp": "GraSP", "synflow": "SynFlow", "obd": "OBD"}


def label(method: str) -> str:
    """What a figure calls a method, a variant of it, or a check of it (`snip shuffled`)."""
    if method in LABELS:
        return LABELS[method]
    variants, _, rest = method.rpartition("_")
    name, _, check = rest.partition(" ")
    said = words(f"{variants} {NAMES[name]}") if name in NAMES else words(method)
    return said.strip() if not check or name not in NAMES else f"{said.strip()}, {check}"


def ordered(summary: Sequence[dict[str, Any]]) -> list[str]:
    """The methods of a summary: those with a place of their own first, then as they come."""
    there = dict.fromkeys(row["method"] for row in summary)
    return [m for m in LABELS if m in there] + [m for m in there if m not in LABELS]


def draw_against_density(folder: Path) -> Path:
    """Test accuracy, untrained and trained, against weights left: a line a method.

    Mean over seeds; bars are standard deviations. Checks of a method are in its colour, broken.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    methods = [m for m in ordered(summary) if m != "dense"]
    plain = list(dict.fromkeys(_plain(m) for m in methods))
    fig, axes = subplots(1, 2, (14, 5))
    for panel, when in zip(axes.flat, ("untrained", "trained"), strict=True):
        found = [row for row in summary if row.get(f"{when}_accuracy") is not None]
        for method in methods if found else ():
            mine = [row for row in found if row["method"] == method]
            left = sorted({row["density"] for row in mine})
            groups = [
                [100 * row[f"{when}_accuracy"] for row in mine if row["density"] == density]
                for density in left
            ]
            spread = [np.std(g, ddof=1) if len(g) > 1 else 0.0 for g in groups]
            line, marker = _style(method)
            panel.errorbar(
                [100 * density for density in left],
                [np.mean(g) for g in groups],
                spread,
                color=f"C{plain.index(_plain(method)) % 10}",
                ls=line,
                marker=marker,
                ms=4,
                lw=1.2,
                capsize=2,
                label=label(method).replace("\n", " "),
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
    named = axes.flat[0].get_legend_handles_labels()
    where = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    axes.flat[-1].legend(*named, frameon=False, fontsize="small", **where)
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: mean and standard deviation of {seeds} seeds"
    )
    return save(fig, folder, "accuracies")


def draw_lost(folder: Path) -> Path:
    """The share of each layer that is kept, method by method; a cross where a layer is lost.

    Mean over seeds; lost if it is in any seed.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    layers = [name for name in summary[0] if name.startswith("density/")]
    methods = [m for m in ordered(summary) if m != "dense" and " " not in m]
    densities = sorted({row["density"] for row in summary if row["method"] != "dense"})[::-1]
    width, height = 1.3 + 0.45 * len(densities), 1.2 + 0.32 * len(layers)
    columns = min(len(methods), 5)
    lines = -(-len(methods) // columns)
    fig, axes = subplots(lines, columns, (1.5 + width * columns, 0.6 + height * lines))
    for panel, method in zip(axes.flat, methods, strict=False):
        share = np.full((len(layers), len(densities)), np.nan)
        for x, density in enumerate(densities):
            mine = [r for r in summary if r["method"] == method and r["density"] == density]
            for y, layer in enumerate(layers if mine else ()):
                kept = [row[layer] for row in mine]
                share[y, x] = np.mean(kept)
                if min(row[layer.replace("density/", "kept/")] for row in mine) == 0:
                    panel.plot(x, y, "x", color="C3", ms=8, mew=2)
        with np.errstate(divide="ignore"):
            shown = panel.imshow(np.log10(share), cmap="viridis", vmin=-5, vmax=0, aspect="auto")
        panel.set_xticks(
            range(len(densities)),
            [f"{100 * d:g}" for d in densities],
            rotation=90,
            fontsize="small",
        )
        names = [name.removeprefix("density/").removesuffix("/kernel") for name in layers]
        panel.set_yticks(range(len(layers)), names, fontsize="small")
        panel.set_title(label(method).replace("\n", " "), fontsize="small")
    for panel in axes.flat[len(methods) :]:
        panel.axis("off")
    for panel in axes[-1]:
        panel.set_xlabel("weights left (%)")
    bar = fig.colorbar(shown, ax=axes, shrink=0.8)
    bar.set_label("kept share of the layer (power of ten)")
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: what each layer keeps; crosses: lost",
        fontsize="medium",
    )
    return save(fig, folder, "lost")


def _plain(method: str) -> str:
    return method.removeprefix("inverted_").split(" ")[0]


def _style(method: str) -> tuple[str, str]:
    """Line and marker: whole for a method, broken for its checks."""
    if method.startswith("inverted_"):
        return "-.", "v"
    check = method.partition(" ")[2]
    return {"shuffled": (":", "x"), "reinit": ("--", "s")}.get(check, ("-", "o"))


def draw_accuracies(folder: Path) -> Path:
    """Test accuracy of each method, untrained and trained: mean, standard deviation, each seed."""
    summary = rows.read_summary(folder)
    spec = read_spec(folder)
    methods = ordered(summary)
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
        panel.set_xticks(range(len(methods)), [label(m) for m in methods], rotation=35, ha="right")
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
    methods = [m for m in ordered(summary) if m != "dense" and " " not in m]  # checks keep counts
    densities = sorted({row["density"] for row in summary if row["method"] != "dense"})[::-1]
    pruned = [row for row in summary if row["method"] != "dense"]
    fig, axes = subplots(1, len(densities), (4.5 * len(densities) + 2, 4.2))
    for panel, density in zip(axes.flat, densities, strict=True):
        for i, method in enumerate(methods):
            members = [r for r in summary if r["method"] == method and r["density"] == density]
            share = np.array([[r[name] for name in layers] for r in members])
            place = np.arange(len(layers)) + (i - (len(methods) - 1) / 2) * 0.8 / len(methods)
            bars = share.std(0, ddof=1) if len(share) > 1 else None
            name = label(method).replace("\n", " ")
            panel.bar(place, share.mean(0), 0.8 / len(methods), yerr=bars, label=name)
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
