"""The figure of strong tickets: errors of weights and nets against the coefficients of a weight."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import deviations, logarithmic, over_seeds, save, subplots
from experiments.harness.records import read_spec
from experiments.harness.rows import Row
from experiments.strong_tickets.page import grouped
from experiments.strong_tickets.rebuilding import TARGET
from experiments.strong_tickets.theory import THEORIES

LABELS = {
    "malach": "the closest product (Malach)",
    "orseau": "a greedy sum (Orseau)",
    "pensia": "the best sum (Pensia)",
}
COLOURS = {"malach": "C3", "orseau": "C1", "pensia": "C0"}
MARKERS = {"malach": "s", "orseau": "D", "pensia": "o"}
FLOOR = 1e-8
"""Errors below this are the rounding of float32."""


def draw_errors(folder: Path, targets: np.ndarray) -> Path:
    """Draws the errors of single weights with their theory, and the rebuilt nets' test errors.

    Lines with markers are median errors, thin lines the largest, dotted lines the theory.

    Args:
      folder: the run's folder, with `errors.csv` and `summary.csv`.
      targets: a sample of the weights that are rebuilt, for the theory's median.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    curve = rows.read_csv(folder / "errors.csv") if (folder / "errors.csv").exists() else []
    fig, axes = subplots(1, 2, (11.5, 4.9))
    errors, nets = axes[0]
    for method in spec["constructions"]:
        _errors(errors, method, [row for row in curve if row["method"] == method], targets)
        _nets(nets, method, [row for row in summary if row["method"] == method])
    errors.set_yscale("log")
    least = min((row["median_error"] for row in curve), default=1.0)
    errors.set_ylim(bottom=max(least, FLOOR) / 3)
    errors.set(xlabel="random coefficients a weight", ylabel="error of a weight")
    errors.set_title(
        "median of a net's weights; thin: the largest; dotted: theory", fontsize="small"
    )
    target = [_test_error(row) for row in summary if row["method"] == TARGET]
    nets.axhline(np.mean(target), color="0.4", lw=0.9, label="the trained net")
    nets.set(xlabel="random coefficients a weight", ylabel="test images misclassified (%)")
    nets.set_title(f"rebuilt nets, {over_seeds(spec['seeds'])}", fontsize="small")
    for panel in (errors, nets):
        _ticks(panel)
    numbers = sorted({row["coefficients"] for row in summary} - {None})
    nets.set_xticks(numbers, [str(n) for n in numbers])
    logarithmic(nets)
    if curve:
        errors.legend(frameon=False, fontsize="small")
    nets.legend(frameon=False, fontsize="small")
    fig.suptitle(f"Strong tickets of {spec['model']} on {spec['dataset']}", fontsize="medium")
    return save(fig, folder, "errors")


def _errors(panel: Any, method: str, curve: Sequence[Row], targets: np.ndarray) -> None:
    groups = {n: members for (_, n), members in grouped(curve).items()}
    if not groups:
        return
    numbers, colour = sorted(n for n in groups if n is not None), COLOURS[method]
    middle = [np.mean([row["median_error"] for row in groups[n]]) for n in numbers]
    largest = [max(row["largest_error"] for row in groups[n]) for n in numbers]
    panel.plot(numbers, middle, color=colour, marker=MARKERS[method], ms=4, label=LABELS[method])
    panel.plot(numbers, largest, color=colour, lw=0.7)
    dense = np.unique(np.geomspace(max(2, numbers[0]), numbers[-1], 100).round().astype(int))
    theory = np.array([np.median(THEORIES[method].error(int(n), targets)) for n in dense])
    shown = theory > FLOOR
    panel.plot(dense[shown], theory[shown], color=colour, ls=":", lw=1.8)


def _nets(panel: Any, method: str, summary: Sequence[Row]) -> None:
    groups = {n: members for (_, n), members in grouped(summary).items()}
    numbers = sorted(n for n in groups if n is not None)
    found = [[_test_error(row) for row in groups[n]] for n in numbers]
    panel.errorbar(
        numbers,
        [np.mean(values) for values in found],
        deviations(found),
        color=COLOURS[method],
        marker=MARKERS[method],
        ms=5,
        capsize=2,
        label=LABELS[method],
    )


def _test_error(row: Row) -> float:
    return 100 * (1 - float(row["test_accuracy"]))


def _ticks(panel: Any) -> None:
    """A logarithmic x axis with plain numbers, a tick near each end of the data."""
    from matplotlib.ticker import LogLocator, NullLocator

    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1, 3)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter("{x:g}")
    panel.grid(alpha=0.3)
