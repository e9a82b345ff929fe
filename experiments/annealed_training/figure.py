"""Figures: what each variant adds to GraNet, accuracy over heat, and the chains of a seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.annealed_training.variants import heat_name
from experiments.harness import pixel_maps, rows
from experiments.harness.canvas import densities, legend_beside, save, subplots
from experiments.harness.records import read_spec
from experiments.harness.tables import grouped, paired

Row = dict[str, Any]


def draw_accuracies(folder: Path, base: str) -> Path:
    """Draws the difference of each variant's test accuracy from that of `base`, paired by seed.

    Points are means and whiskers 95 % intervals; a panel a density.
    """
    summary = rows.read_summary(folder)
    names = [n for n in dict.fromkeys(row["method"] for row in summary) if n != base]
    panels = densities(summary)
    fig, axes = subplots(1, len(panels), (3.2 + 3.2 * len(panels), 1.2 + 0.3 * len(names)))
    for panel, density in zip(axes.flat, panels, strict=True):
        for i, name in enumerate(names):
            mean, half = _difference(summary, name, base, density)
            half = half if np.isfinite(half) else 0
            panel.errorbar(mean, i, xerr=half, fmt="o", ms=4, color="C0", capsize=3)
        panel.axvline(0, color="0.6", lw=1)
        panel.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_xlabel(f"test accuracy less {base} (points)")
        panel.set_title(f"{100 * density:g} % of the weights", fontsize="medium")
        panel.grid(axis="x", alpha=0.3)
    fig.suptitle(_title(folder, "Rewound masks of equal budget"))
    return save(fig, folder, "accuracies")


def draw_heat(folder: Path, base: str) -> Path | None:
    """Draws test accuracy less that of `base` over the heat; None if the run has no heats."""
    summary = rows.read_summary(folder)
    heats = [(heat, heat_name(heat)) for heat in sorted(map(float, read_spec(folder)["heat"]))]
    if not heats or base not in {row["method"] for row in summary}:
        return None
    fig, axes = subplots(1, 1, (6.5, 3.8))
    panel = axes[0, 0]
    for i, density in enumerate(densities(summary)):
        found = [_difference(summary, name, base, density) for _, name in heats]
        means, halves = (np.array(values) for values in zip(*found, strict=True))
        halves = np.where(np.isfinite(halves), halves, 0)
        at = np.array([heat for heat, _ in heats]) * 1.02**i  # whiskers beside each other
        panel.errorbar(
            at, means, halves, fmt="o-", ms=4, capsize=3, color=f"C{i}", label=f"{100 * density:g}"
        )
    panel.axhline(0, color="0.6", lw=1)
    panel.set_xscale("log")
    panel.set_xlabel("heat of drops and growth at first")
    panel.set_ylabel(f"test accuracy less {base} (points)")
    panel.grid(alpha=0.3)
    legend_beside(panel)
    panel.get_legend().set_title("weights left (%)")
    fig.suptitle(_title(folder, "Heat"))
    return save(fig, folder, "heat")


def draw_chains(folder: Path) -> Path | None:
    """Draws the validation loss of each chain of the first seed over its rounds.

    A panel a variant with several chains, at the lowest density; None if there is none.
    """
    spec = read_spec(folder)
    metrics = [row for row in rows.read_metrics(folder) if "validation" in row and "chain" in row]
    lowest = min((row["density"] for row in metrics), default=0)
    mine: dict[str, dict[int, list[tuple[int, float, float]]]] = {}
    for row in metrics:
        if row["density"] == lowest and row["seed"] == spec["seed"]:
            name = row["phase"].rpartition("-")[0]
            point = row["step"], row["validation"], row["temperature"]
            mine.setdefault(name, {}).setdefault(row["chain"], []).append(point)
    several = {name: chains for name, chains in mine.items() if len(chains) > 1}
    if not several:
        return None
    fig, axes = subplots(1, len(several), (1.2 + 2.6 * len(several), 3.2))
    for panel, (name, chains) in zip(axes.flat, several.items(), strict=True):
        heats = [point[2] for points in chains.values() for point in points]
        for chain, points in chains.items():
            step, loss, heat = (np.array(values) for values in zip(*sorted(points), strict=True))
            panel.plot(step, loss, color=f"C{chain}", lw=1)
            size = 8 + 40 * heat / max(heats)
            panel.scatter(step, loss, s=size, color=f"C{chain}")
        panel.set_title(name.replace("_", " "), fontsize="medium")
        panel.set_xlabel("round")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("validation loss (nats)")
    fig.suptitle(
        _title(folder, f"Chains of seed {spec['seed']} at {100 * lowest:g} %, larger while hotter")
    )
    return save(fig, folder, "chains")


def draw_agreement(folder: Path) -> Path | None:
    """Draws the inputs of the weights that k of a seed's chains keep, a panel a number k.

    Of the first variant with several chains, the lowest density and the first seed; None if there
    is none, or if the net's first layer has no input for each pixel.
    """
    found = [row for row in rows.read_metrics(folder) if row.get("pixels")]
    if not found:
        return None
    lowest, phase = min(row["density"] for row in found), ""
    chosen = []
    for row in found:
        if row["density"] == lowest and row["seed"] == found[0]["seed"]:
            phase = phase or row["phase"]
            chosen += [row] if row["phase"] == phase else []
    side = int(len(chosen[0]["pixels"]) ** 0.5)
    if side * side != len(chosen[0]["pixels"]):
        return None
    pictures = {}
    for row in chosen:
        title = f"kept by {row['kept_by']} of {len(chosen)} chains:\n{row['weights']:,} weights"
        pictures[title] = np.reshape(row["pixels"], (side, side))
    fig = pixel_maps.draw(pictures, across=len(chosen))
    name = phase.removesuffix("-agreement").rpartition("-")[0].replace("_", " ")
    fig.suptitle(_title(folder, f"{name}, seed {chosen[0]['seed']}, {100 * lowest:g} % left"))
    return save(fig, folder, "agreement")


def _difference(
    summary: Sequence[Row], name: str, base: str, density: float
) -> tuple[float, float]:
    groups = grouped(summary)
    ours, theirs = (
        {row["seed"]: 100 * row["trained_accuracy"] for row in groups.get((of, "", density), [])}
        for of in (name, base)
    )
    return paired(ours, theirs) if ours and theirs else (np.nan, np.nan)


def _title(folder: Path, what: str) -> str:
    spec = read_spec(folder)
    many = spec["seeds"]
    cost = f"the cost of {spec['budget']:g} dense training{'s' if spec['budget'] != 1 else ''}"
    words = f"{what}: {spec['model']} on {spec['dataset']}, {cost}"
    return f"{words}, n = {many} seed{'s'[: many - 1]}"
