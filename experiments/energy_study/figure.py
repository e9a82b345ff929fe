"""A figure of the correlation between energies of untrained masks and trained accuracies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import over_seeds, save, subplots
from experiments.harness.method_figures import label
from experiments.harness.records import read_spec


def draw_energies(folder: Path, found: Sequence[dict[str, Any]]) -> Path:
    """Draws each energy's correlation and cost, and a scatter of the best energy.

    Each density has a row of panels.

    Args:
      folder: the run's folder.
      found: rows of `energy`, `density`, `cost`, `correlation` and `spread`.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    densities = list(dict.fromkeys(row["density"] for row in found))
    fig, axes = subplots(len(densities), 2, (13, 6.2 * len(densities)))
    for (bars, points), density in zip(axes, densities, strict=True):
        mine = [row for row in found if row["density"] == density]
        mine.sort(key=lambda row: row["correlation"])
        place = range(len(mine))
        spread = [row["spread"] or 0.0 for row in mine]
        bars.barh(place, [row["correlation"] for row in mine], xerr=spread, color="C0", alpha=0.7)
        bars.set_yticks(place, [f"{row['energy']}  ({_short(row['cost'])})" for row in mine])
        bars.tick_params(axis="y", labelsize="small")
        bars.axvline(0, color="0.3", lw=0.8)
        bars.set_xlabel("rank correlation with validation accuracy, trained")
        bars.set_title(f"density {density:g}: energies (forward passes of one image)")
        best = mine[-1]["energy"]
        there = [row for row in summary if row["density"] == density]
        kinds = list(dict.fromkeys((row["method"], row["check"] or "") for row in there))
        methods = list(dict.fromkeys(method for method, _ in kinds))
        for kind in kinds:
            of = [row for row in there if (row["method"], row["check"] or "") == kind]
            points.plot(
                [row[f"energy/{best}"] for row in of],
                [100 * row["validation_accuracy"] for row in of],
                "x" if kind[1] else "o",
                color=f"C{methods.index(kind[0]) % 10}",
                label=label(*kind).replace("\n", " "),
                ms=5,
                alpha=0.8,
            )
        reached = np.array([100 * row["validation_accuracy"] for row in there])
        least, middle, most = np.quantile(reached, (0.05, 0.5, 1))
        bottom = min(least, 2 * middle - most)
        points.set_ylim(bottom, most + 0.05 * (most - least))
        energies = np.array([row[f"energy/{best}"] for row in there])
        first, last = energies[reached >= bottom].min(), energies[reached >= bottom].max()
        margin = 0.05 * (last - first) or 0.05 * abs(last) or 1
        points.set_xlim(first - margin, last + margin)
        points.set(xlabel=best, ylabel="validation accuracy, trained (%)")
        points.set_title(f"density {density:g}: a point per mask, without the worst 5 %")
        points.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
        points.grid(alpha=0.3)
    seeds = max(row["seeds"] for row in found)
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: energies at initialisation and accuracy after full "
        f"training; {over_seeds(seeds)}"
    )
    return save(fig, folder, "energies")


def _short(count: int) -> str:
    """A count with a unit, such as `25 k`."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if count >= size:
            return (
                f"{count / size:.2g} {letter}" if count < 10 * size else f"{count // size} {letter}"
            )
    return str(count)
