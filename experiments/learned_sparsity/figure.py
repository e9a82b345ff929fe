"""Figures of learned sparsity: accuracy against the weights, and the multiply-adds, left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import pixel_maps, rows
from experiments.harness.canvas import deviation, legend_beside, save, subplots, words
from experiments.harness.records import read_spec
from experiments.learned_sparsity.methods import CONTROLS, DENSE, LEARNED
from experiments.learned_sparsity.page import grouped
from jaxtickets.io import tickets
from jaxtickets.types import Prunable

Row = dict[str, Any]
DEPTH = 12.0
"""Points below the dense net's accuracy that are shown, or more if a method has none there."""
SHOWN, FULLEST = 0.01, 0.25
"""The density of the tickets that are shown, and the highest one, in which little is to see."""
MARKERS = "osD^vP<>X"
COLOURS = (*("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9"), *("navy", "gold", "teal"))
"""Of methods that learn their density; the tones of grey are those of methods that are told one."""


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy against the share of weights left, a line a method, on a log axis.

    Points are means over seeds, whiskers sample standard deviations in both directions. Methods
    that learn their density have colours, those that are told one grey tones and broken lines.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    fig, axes = subplots(1, 1, (9.6, 5.2))
    panel = axes[0, 0]
    _lines(panel, summary, _density)
    panel.set_xlabel("weights left (% of all prunable weights)")
    _finish(panel, summary, _density)
    fig.suptitle(f"Learned sparsity: {_setting(spec)}", fontsize="medium")
    return save(fig, folder, "accuracies")


def draw_multiply_adds(folder: Path) -> Path:
    """Draws test accuracy of the cut nets against their multiply-adds, for methods by units."""
    spec, summary = read_spec(folder), rows.read_summary(folder)
    fig, axes = subplots(1, 1, (9.6, 5.2))
    panel = axes[0, 0]
    cut = [
        {**row, "trained_accuracy": row["cut_accuracy"], "retrained_accuracy": None}
        for row in summary
        if row.get("cut_left") is not None
    ]
    dense = [row for row in summary if row["method"] == DENSE]
    _lines(panel, [*dense, *cut], _cut_left)
    panel.set_xlabel("multiply-adds of the cut net (% of the dense net's)")
    _finish(panel, [*dense, *cut], _cut_left)
    fig.suptitle(f"Nets cut to the units left: {_setting(spec)}", fontsize="medium")
    return save(fig, folder, "multiply_adds")


def draw_tickets(folder: Path, prunable: Prunable, image: Sequence[int]) -> Path | None:
    """Draws what the tickets of about 1 % of the weights read, and says what they are worth.

    Of each method that is the level nearest to that density, on a log scale, if it keeps at most a
    quarter; the mask is the first seed's, and the accuracy the mean over seeds. None, and nothing
    is drawn, if no layer has an input for each pixel, or there is no such level.

    Args:
      folder: the run's folder.
      prunable: the leaves with masks.
      image: `(h, w, c)`, the shape of an image.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    nearest: dict[str, tuple[float, list[Row]]] = {}
    for (method, *_), members in grouped(summary).items():
        left = float(np.mean([_density(row) for row in members]))
        far = abs(np.log(left / SHOWN)) if 0 < left <= FULLEST else np.inf
        if method != DENSE and far < nearest.get(method, (np.inf, []))[0]:
            nearest[method] = far, members
    pictures = {}
    for method, (_, members) in nearest.items():
        ticket, _ = tickets.load_ticket(folder / "tickets" / members[0]["ticket"])
        picture = pixel_maps.kept(ticket.mask, prunable, image)
        if picture is None:
            return None
        left = 100 * float(np.mean([_density(row) for row in members]))
        found = [_accuracy(row) for row in members]
        worth = f"{np.mean(found):.2f} ± {deviation(found):.2f} %"
        pictures[f"{words(method)}, {left:.2g} % left\n{worth} correct"] = picture
    if not pictures:
        return None
    fig = pixel_maps.draw(pictures)
    dense = np.mean([_accuracy(row) for row in summary if row["method"] == DENSE])
    fig.suptitle(f"What tickets read: {_setting(spec)}; dense {dense:.2f} %", fontsize="medium")
    return save(fig, folder, "tickets")


def _setting(spec: Row) -> str:
    seeds = spec["seeds"]
    many = f"n = {seeds} seed{'s'[: seeds - 1]}"
    again = spec["retrain_epochs"]
    retrained = f", retrained for {again} epoch{'s'[: again - 1]}" if again else ""
    return f"{spec['model']} on {spec['dataset']}{retrained}, {many}, mean ± standard deviation"


def _density(row: Row) -> float:
    return float(row["density"])


def _cut_left(row: Row) -> float:
    """The multiply-adds of a cut net, or of the dense net, in those of the dense one."""
    left = row.get("cut_left")
    return 1.0 if left is None else float(left)


def _accuracy(row: Row) -> float:
    again = row.get("retrained_accuracy")
    return 100 * float(row["trained_accuracy"] if again is None else again)


def _lines(panel: Any, summary: Sequence[Row], share: Callable[[Row], float]) -> None:
    groups = grouped([row for row in summary if row["method"] != DENSE])
    methods = {method for method, *_ in groups}
    learned, told = [*LEARNED], [*CONTROLS]
    for method in [name for name in (*learned, *told) if name in methods]:
        mine = [members for key, members in groups.items() if key[0] == method]
        mine = [members for members in mine if all(share(row) > 0 for row in members)]
        mine.sort(key=lambda members: -float(np.mean([share(row) for row in members])))
        left = [[100 * share(row) for row in members] for members in mine]
        right = [[_accuracy(row) for row in members] for members in mine]
        if method in CONTROLS:
            at = told.index(method)
            style = {"color": str(0.15 + 0.55 * at / max(1, len(told) - 1)), "ls": "--"}
        else:
            at = learned.index(method)
            style = {"color": COLOURS[at % len(COLOURS)], "ls": "-"}
        panel.errorbar(
            [np.mean(values) for values in left],
            [np.mean(values) for values in right],
            [deviation(values) for values in right],
            [deviation(values) for values in left],
            marker=MARKERS[at % len(MARKERS)],
            ms=5,
            lw=1.2,
            elinewidth=0.8,
            capsize=2,
            label=words(method),
            **style,
        )


def _finish(panel: Any, summary: Sequence[Row], share: Callable[[Row], float]) -> None:
    """The dense net's line, the axes with ticks at both ends, the legend."""
    dense = [_accuracy(row) for row in summary if row["method"] == DENSE]
    mean = float(np.mean(dense))
    panel.axhline(mean, color="0.5", lw=0.9, label="dense net")
    panel.axhspan(mean - deviation(dense), mean + deviation(dense), color="0.5", alpha=0.12, lw=0)
    shares = [100 * share(row) for row in summary if share(row) > 0]
    panel.set_xscale("log")
    panel.set_xlim(1.1 * max(shares), min(shares) / 1.1)
    panel.xaxis.set_major_locator(_ticks(max(shares) / min(shares)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    found = [_accuracy(row) for row in summary]
    best: dict[str, float] = {}
    for (method, *_), members in grouped(summary).items():
        worst = min(_accuracy(row) for row in members)
        best[method] = max(worst, best.get(method, worst))
    least = max(min(mean - DEPTH, *best.values()), min(found)) - 0.5
    panel.set_ylim(least, max(found) + 0.5)
    hidden = len(
        {(r["method"], r["strength"], r["asked"]) for r in summary if _accuracy(r) < least}
    )
    if hidden:
        settings = "setting is" if hidden == 1 else "settings are"
        panel.set_title(f"{hidden} {settings} below {least:.0f} %", fontsize="small")
    panel.set_ylabel("test accuracy (%)")
    panel.grid(alpha=0.3)
    legend_beside(panel)


def _ticks(span: float) -> Any:
    """Ticks of a log axis: closer ones if its ends are less than a factor of 20 apart."""
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 5) if span > 20 else (1, 1.5, 2, 3, 4, 5, 7))
