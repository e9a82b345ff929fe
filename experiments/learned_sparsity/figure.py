"""Figures of learned sparsity: accuracy against the weights, and the multiply-adds, left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import pixel_maps, rows
from experiments.harness.canvas import (
    deviation,
    deviations,
    over_seeds,
    save,
    subplots,
    words,
)
from experiments.harness.records import read_spec
from experiments.harness.tables import spread
from experiments.learned_sparsity.methods import CONTROLS, DENSE, LEARNED
from experiments.learned_sparsity.page import grouped
from jaxtickets.io import tickets
from jaxtickets.types import Prunable

Row = dict[str, Any]
DEPTH = 12.0
"""Points below the dense net's accuracy that are shown; what is lower is marked at the edge."""
SHOWN, FULLEST = 0.01, 0.25
"""The density of the tickets that are shown, and the highest one, in which little is to see."""
PANELS = {
    "learned: single weights": [m for m, one in LEARNED.items() if not one.facts.by_units],
    "learned: whole units": [m for m, one in LEARNED.items() if one.facts.by_units],
    "controls: the density is given": [*CONTROLS],
}
COMPARED = {"gradual": "--", "imp": ":"}
"""The controls that stand beside the learned methods too, with the styles of their grey lines."""
MARKERS = "osD^vP<>X"


class Line(NamedTuple):
    """A method's points, from its largest share left to its smallest.

    Attributes:
      left: for each point the shares that seeds have left, in %.
      accuracy: for each point the test accuracies of seeds, in %.
    """

    left: list[list[float]]
    accuracy: list[list[float]]


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy against the share of weights left, on a log axis.

    Points are means over seeds, whiskers sample standard deviations in both directions. Methods
    stand in up to three panels, see `PANELS`.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    fig = _draw(summary, _density, "weights left (% of all prunable weights)")
    fig.suptitle(f"Learned sparsity: {_setting(spec)}", fontsize="medium")
    return save(fig, folder, "accuracies")


def draw_multiply_adds(folder: Path) -> Path | None:
    """Draws test accuracy of the cut nets against their multiply-adds, if a method cuts nets."""
    spec, summary = read_spec(folder), rows.read_summary(folder)
    cut = [
        {**row, "trained_accuracy": row["cut_accuracy"], "retrained_accuracy": None}
        for row in summary
        if row.get("cut_left") is not None
    ]
    if not cut:
        return None
    dense = [row for row in summary if row["method"] == DENSE]
    fig = _draw([*dense, *cut], _cut_left, "multiply-adds of the cut net (% of the dense net's)")
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
        worth = f"{spread(found, 1)} % correct"
        pictures[f"{words(method)}, {left:.2g} % left\n{worth}"] = picture
    if not pictures:
        return None
    fig = pixel_maps.draw(pictures)
    dense = np.mean([_accuracy(row) for row in summary if row["method"] == DENSE])
    fig.suptitle(f"What tickets read: {_setting(spec)}; dense {dense:.2f} %", fontsize="medium")
    return save(fig, folder, "tickets")


def _setting(spec: Row) -> str:
    again = spec["retrain_epochs"]
    retrained = f", retrained for {again} epoch{'s'[: again - 1]}" if again else ""
    return f"{spec['model']} on {spec['dataset']}{retrained}, {over_seeds(spec['seeds'])}"


def _density(row: Row) -> float:
    return float(row["density"])


def _cut_left(row: Row) -> float:
    """The multiply-adds of a cut net, or of the dense net, in those of the dense one."""
    left = row.get("cut_left")
    return 1.0 if left is None else float(left)


def _accuracy(row: Row) -> float:
    again = row.get("retrained_accuracy")
    return 100 * float(row["trained_accuracy"] if again is None else again)


# --- panels ---------------------------------------------------------------------------------------


def _draw(summary: Sequence[Row], share: Callable[[Row], float], name: str) -> Any:
    """A figure with a panel for each kind of method that is there; all have the same axes.

    Args:
      summary: the rows of the dense net and of the methods.
      share: a row's place on the x axis, as a share of the dense net's.
      name: the x axis' label.
    """
    lines = _lines(summary, share)
    dense = [_accuracy(row) for row in summary if row["method"] == DENSE]
    left, bottom, top = _least(lines), *_heights(lines, dense)
    panels = {title: [m for m in some if m in lines] for title, some in PANELS.items()}
    panels = {title: methods for title, methods in panels.items() if methods}
    fig, axes = subplots(1, len(panels), (max(7.0, 1 + 4.5 * len(panels)), 5.6))
    for panel, (title, methods) in zip(axes.flat, panels.items(), strict=True):
        panel.axhline(np.mean(dense), color="0.5", lw=0.9, label="dense net")
        if len(dense) > 1:
            low, high = np.mean(dense) - deviation(dense), np.mean(dense) + deviation(dense)
            panel.axhspan(low, high, color="0.5", alpha=0.12, lw=0)
        for method in [name for name in COMPARED if name in lines and name not in methods]:
            x, y = _means(lines[method])
            panel.plot(x, y, color="0.55", ls=COMPARED[method], lw=1, label=words(method))
        for at, method in enumerate(PANELS[title]):
            if method in methods:
                _draw_line(panel, lines[method], method, at, bottom)
        if any(y < bottom for method in methods for y in _means(lines[method])[1]):
            hollow = {"marker": "o", "mfc": "white", "color": "0.3", "ls": ""}
            panel.plot([], [], label=f"hollow: below {bottom:.1f} %", **hollow)
        panel.set_xscale("log")
        panel.set_xlim(115, left / 1.15)
        ticks = _ticks(left, 100)
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.set_ylim(bottom, top)
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
        panel.legend(frameon=False, fontsize="small", **below)
    axes[0, 0].set_ylabel("test accuracy (%)")
    for panel in axes[0, 1:]:
        panel.tick_params(labelleft=False)
    return fig


def _lines(summary: Sequence[Row], share: Callable[[Row], float]) -> dict[str, Line]:
    """The line of each method, but for settings in which a seed has nothing left."""
    points: dict[str, list[list[Row]]] = {}
    for (method, *_), members in grouped(summary).items():
        if method != DENSE and all(share(row) > 0 for row in members):
            points.setdefault(method, []).append(members)
    found = {}
    for method, mine in points.items():
        mine.sort(key=lambda members: -float(np.mean([share(row) for row in members])))
        left = [[100 * share(row) for row in members] for members in mine]
        found[method] = Line(left, [[_accuracy(row) for row in members] for members in mine])
    return found


def _means(line: Line) -> tuple[list[float], list[float]]:
    left, accuracy = ([float(np.mean(seeds)) for seeds in points] for points in line)
    return left, accuracy


def _draw_line(panel: Any, line: Line, method: str, at: int, bottom: float) -> None:
    """Draws a method, the `at`-th of its panel; points below the axis are hollow, on its edge."""
    style = {"color": f"C{at + (at >= 7)}", "marker": MARKERS[at % len(MARKERS)]}  # C7 is grey
    x, y = _means(line)
    panel.errorbar(
        x,
        y,
        deviations(line.accuracy),
        deviations(line.left),
        ms=5,
        lw=1.2,
        elinewidth=0.8,
        capsize=2,
        label=words(method),
        **style,
    )
    low = [place for place, height in zip(x, y, strict=True) if height < bottom]
    if low:
        edge = panel.get_xaxis_transform()
        panel.plot(low, [0] * len(low), ls="", mfc="white", clip_on=False, transform=edge, **style)


def _heights(lines: dict[str, Line], dense: Sequence[float]) -> tuple[float, float]:
    """The ends of the y axis: what is not more than `DEPTH` below the dense net, with whiskers.

    The methods' best point is always shown.
    """
    points: list[Sequence[float]] = [p for line in lines.values() for p in line.accuracy]
    cut = min(float(np.mean(dense)) - DEPTH, max(float(np.mean(point)) for point in points))
    points = [dense, *points]
    shown = [point for point in points if np.mean(point) >= cut]
    low = min(float(np.mean(point)) - deviation(point) for point in shown)
    high = max(float(np.mean(point)) + deviation(point) for point in shown)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, min(high + margin, 100.0)


def _least(lines: dict[str, Line]) -> float:
    """The tick at which the x axis ends: the next one below all points."""
    least = min(min(_means(line)[0]) for line in lines.values())
    return _ticks(least / 10, 1.01 * least)[-1]


def _ticks(least: float, most: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `least` to `most`, in rising order."""
    decades = range(int(np.floor(np.log10(least))), int(np.ceil(np.log10(most))) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    return [tick for tick in ticks if least <= tick <= most]
