"""Figures of classification: calibration, entropies, rejection, and shifted images.

Each model and data set has a row of panels. Lines are means over seeds, and bands or whiskers
sample standard deviations, which a single seed doesn't have.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import (
    deviation,
    legend_beside,
    over_seeds,
    save,
    subplots,
    words,
)
from experiments.harness.records import read_spec
from experiments.harness.rows import Row
from experiments.harness.tables import spread
from jaxtickets.data import classes

CURVES = "curves.csv"
WHOLE = "whole"
FEWEST = 10
"""The fewest images that a bin must have in every seed to be drawn."""
OTHERS = {"inverted": "inverted test images", "noise": "random pixels"}


class Line(NamedTuple):
    """A curve of several seeds.

    Attributes:
      x: float`[points]`.
      mean, spread: float`[points]`, over the seeds that have the point.
    """

    x: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def draw_reliability(folder: Path) -> Path:
    """Draws accuracy against confidence in bins, a panel a method, a line a kind of net.

    Pruned nets are those of the lowest density. Bins with fewer than `FEWEST` images in any seed
    are left out: their accuracy says nothing.
    """
    found = _read(folder)
    lowest = min(row["density"] for row in found)
    kinds = list(dict.fromkeys(row["net"] for row in found))
    nets, methods = _nets(found), _methods(found)
    many = len({row["seed"] for row in found})
    fig, axes = subplots(len(nets), len(methods), (3.4 * len(methods) + 1.6, 3.4 * len(nets)))
    for line, net in zip(axes, nets, strict=True):
        for panel, method in zip(line, methods, strict=True):
            panel.plot([0, 1], [0, 1], color="0.6", lw=0.8)
            for kind in kinds:
                density = 1.0 if kind == WHOLE else lowest
                mine = _of(found, net=kind, method=method, density=density, **net)
                if not mine:
                    continue
                x, y = _line(mine, "confidence"), _line(mine, "accuracy")
                full = full_bins(mine)
                label = kind if kind == WHOLE else f"{kind}, {100 * density:g} % left"
                panel.errorbar(
                    x.mean[full],
                    y.mean[full],
                    y.spread[full] if many > 1 else None,
                    fmt="o-",
                    ms=3,
                    lw=1.2,
                    capsize=2,
                    color=f"C{kinds.index(kind)}",
                    label=label,
                )
            panel.set(xlabel="confidence", ylabel="accuracy", title=_head(net, method, nets))
            panel.set(xlim=(0, 1.02), ylim=(0, 1.02))
            panel.grid(alpha=0.3)
    legend_beside(axes[0, -1])
    few = f"bins with fewer than {FEWEST} images{' in a seed' * (many > 1)} are left out"
    title = _title(folder, "Accuracy of predictions by their confidence")
    fig.suptitle(f"{title}\n{few}", fontsize="medium")
    return save(fig, folder, "reliability")


def draw_entropy(folder: Path) -> Path:
    """Draws how many test images, and how many others, have which predictive entropy."""
    found = [row for row in _read(folder) if row["net"] == WHOLE]
    summary = rows.read_summary(folder)
    other = read_spec(folder)["other_dataset"]
    nets, methods = _nets(found), _methods(found)
    fig, axes = subplots(len(nets), len(methods), (3.4 * len(methods) + 2, 3 * len(nets)))
    for line, net in zip(axes, nets, strict=True):
        for panel, method in zip(line, methods, strict=True):
            mine = _of(found, method=method, **net)
            for name, label in (("inside", "test images"), ("outside", OTHERS.get(other, other))):
                shares = _line(mine, name)
                most = np.log(classes(net["dataset"]))
                at = most * (shares.x + (shares.x[1] - shares.x[0]) / 2)
                low = 100 * np.maximum(shares.mean - shares.spread, 0)
                panel.plot(at, 100 * shares.mean, drawstyle="steps-mid", label=label)
                panel.fill_between(
                    at, low, 100 * (shares.mean + shares.spread), step="mid", alpha=0.2
                )
            areas = [row["auroc"] for row in _of(summary, net=WHOLE, method=method, **net)]
            area = f"AUROC {spread(areas, 1, 3)}"
            panel.set(xlabel="predictive entropy (nats)", ylabel="images (%)")
            panel.set_title(f"{_head(net, method, nets)}\n{area}", fontsize="medium")
            panel.set_yscale("symlog", linthresh=1)
            panel.set_ylim(0, 100)
            panel.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
            panel.grid(alpha=0.3)
    legend_beside(axes[0, -1])
    fig.suptitle(_title(folder, "Entropy on test images and on others"))
    return save(fig, folder, "entropy")


def draw_rejection(folder: Path) -> Path:
    """Draws the accuracy on what is left after the images of highest entropy are rejected."""
    found = _read(folder)
    lowest = min(row["density"] for row in found)
    shown = [(WHOLE, 1.0), *[(kind, lowest) for kind in _kinds(found) if kind != WHOLE]]
    nets, methods = _nets(found), _methods(found)
    fig, axes = subplots(len(nets), len(shown), (3.2 * len(shown) + 1.6, 3.2 * len(nets)))
    for line, net in zip(axes, nets, strict=True):
        for panel, (kind, density) in zip(line, shown, strict=True):
            for method in methods:
                mine = _of(found, net=kind, method=method, density=density, **net)
                if mine:
                    _band(panel, _line(mine, "rejection"), method, methods, 100, 100)
            head = kind if kind == WHOLE else f"{kind}, {100 * density:g} % left"
            panel.set_title(_head(net, head, nets), fontsize="medium")
            panel.set(xlabel="rejected images (%)", ylabel="accuracy on the others (%)")
            panel.set_xticks([0, 20, 40, 60, 80, 95])
            panel.grid(alpha=0.3)
    legend_beside(axes[0, -1], *axes[0, 0].get_legend_handles_labels())
    fig.suptitle(_title(folder, "Accuracy after rejection of the most uncertain images"))
    return save(fig, folder, "rejection")


PANELS = (
    ("rotated_accuracy", "rotation (degrees)", "accuracy (%)", 100),
    ("rotated_entropy", "rotation (degrees)", "predictive entropy (nats)", 1),
    ("noisy_accuracy", "noise (white = 1)", "accuracy (%)", 100),
    ("noisy_entropy", "noise (white = 1)", "predictive entropy (nats)", 1),
)


def draw_shifts(folder: Path) -> Path:
    """Draws accuracy and entropy of whole nets on rotated and on noisy test images."""
    found = [row for row in _read(folder) if row["net"] == WHOLE]
    nets, methods = _nets(found), _methods(found)
    fig, axes = subplots(len(nets), len(PANELS), (14, 3.2 * len(nets)))
    for line, net in zip(axes, nets, strict=True):
        for panel, (curve, x, y, scale) in zip(line, PANELS, strict=True):
            for method in methods:
                shifted = _line(_of(found, method=method, **net), curve)
                _band(panel, shifted, method, methods, 1, scale)
            panel.set_xticks(shifted.x[:: max(1, len(shifted.x) // 6)])
            panel.set(xlabel=x, ylabel=y, title=_head(net, "", nets))
            panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
    legend_beside(axes[0, -1])
    fig.suptitle(_title(folder, "Accuracy and entropy on shifted test images"))
    return save(fig, folder, "shifts")


# --- curves --------------------------------------------------------------------------------------


def _read(folder: Path) -> list[Row]:
    return rows.read_csv(folder / CURVES)


def _nets(found: Sequence[Row]) -> list[Row]:
    pairs = dict.fromkeys((row["model"], row["dataset"]) for row in found)
    return [{"model": model, "dataset": dataset} for model, dataset in pairs]


def _methods(found: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in found))


def _kinds(found: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["net"] for row in found))


def _of(found: Sequence[Row], **fields: Any) -> list[Row]:
    return [row for row in found if all(row[name] == value for name, value in fields.items())]


def full_bins(found: Sequence[Row]) -> np.ndarray:
    """Which of the bins that any seed has in use have `FEWEST` images in every seed: bool`[n]`."""
    counts: dict[float, list[float]] = {}
    for row in found:
        if row["curve"] == "bin":
            counts.setdefault(row["x"], []).append(row["y"])
    seeds = len({row["seed"] for row in found})
    return np.array([len(counts[x]) == seeds and min(counts[x]) >= FEWEST for x in sorted(counts)])


def _line(found: Sequence[Row], curve: str) -> Line:
    groups: dict[float, list[float]] = {}
    for row in found:
        if row["curve"] == curve:
            groups.setdefault(row["x"], []).append(row["y"])
    x = sorted(groups)
    mean = [np.mean(groups[at]) for at in x]
    return Line(np.array(x), np.array(mean), np.array([deviation(groups[at]) for at in x]))


# --- panels --------------------------------------------------------------------------------------


def _band(panel: Any, line: Line, method: str, methods: Sequence[str], x: float, y: float) -> None:
    """A mean with its band; `x` and `y` are factors."""
    color = f"C{methods.index(method)}"
    at, mean, spread = x * line.x, y * line.mean, y * line.spread
    panel.plot(at, mean, "o-", ms=3, lw=1.2, color=color, label=words(method))
    panel.fill_between(at, mean - spread, mean + spread, color=color, alpha=0.15, lw=0)


def _head(net: Row, what: str, nets: Sequence[Row]) -> str:
    """The head of a panel; it names the net if there are several."""
    name = f"{net['model']} on {net['dataset']}" if len(nets) > 1 else ""
    return "\n".join(part for part in (name, words(what)) if part)


def _title(folder: Path, what: str) -> str:
    nets = _nets(rows.read_summary(folder))
    net = f": {nets[0]['model']} on {nets[0]['dataset']}" if len(nets) == 1 else ""
    return f"{what}{net}, {over_seeds(read_spec(folder)['seeds'])}"
