"""Figures of compression: error against what is left, stage by stage, and what bytes are for."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.compression.files import DENSE, PARTS, STAGES
from experiments.compression.page import grouped
from experiments.harness import rows
from experiments.harness.canvas import (
    deviation,
    deviations,
    legend_beside,
    over_seeds,
    save,
    subplots,
    words,
)
from experiments.harness.records import read_spec

Row = dict[str, Any]
MARKERS = dict(zip(STAGES, "xosd^vP", strict=True))
CODED = ("values_trained", "huffman", "coded")
"""The stages whose bytes are shown."""
DEPTH = 2.5
"""An error above so many times the dense net's, and above 10 %, isn't shown."""
PUBLISHED: dict[tuple[str, str], list[tuple[str, float, float]]] = {
    ("lenet300_100", "mnist"): [("Deep Compression, 2016", 40, 1.58)],
    ("lenet5", "mnist"): [("Deep Compression, 2016", 39, 0.74)],
}
"""(model, data set) -> (name, factor, test error in per cent), of Han, Mao and Dally, table 1."""


def draw_errors(folder: Path) -> Path:
    """Draws test error against the factor by file size, a point a stage, a line a net.

    Where nothing is shared, that is against the weights left, a line a method. Points are means
    over seeds, whiskers sample standard deviations.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    fig, axes = subplots(1, 1, (9.6, 5.2))
    panel = axes[0, 0]
    dense = [_error(row) for row in summary if row["method"] == DENSE]
    mean, apart = float(np.mean(dense)), deviation(dense)
    panel.axhline(mean, color="0.5", lw=0.9, label="dense net")
    panel.axhspan(mean - apart, mean + apart, color="0.5", alpha=0.12, lw=0)
    published = PUBLISHED.get((spec["model"], spec["dataset"]), []) if spec["levels"] else []
    if spec["levels"]:
        _stages(panel, summary)
        for name, factor, error in published:
            panel.plot(factor, error, "*", color="k", ms=12, ls="", label=name)
        panel.set_xlabel("compression factor: dense net in float32 / file")
    else:
        _cuts(panel, summary)
        panel.set_xlabel("weights left (%)")
    _axes(panel, summary, mean, [error for *_, error in published])
    title = f"{spec['model']} on {spec['dataset']}, {over_seeds(spec['seeds'])}"
    fig.suptitle(f"Compression: {title}", fontsize="medium")
    return save(fig, folder, "errors")


def _error(row: Row) -> float:
    return 100 * (1 - float(row["trained_accuracy"]))


def _stages(panel: Any, summary: Sequence[Row]) -> None:
    groups = grouped([row for row in summary if row["method"] != DENSE])
    methods = list(dict.fromkeys(method for method, *_ in groups))
    densities = sorted({density for _, density, *_ in groups}, reverse=True)
    numbers = sorted({levels for _, _, levels, _ in groups if levels is not None}, reverse=True)
    for method, colour in zip(methods, _colours(methods), strict=True):
        panel.plot([], [], color=colour, label=method)
        for density, levels in itertools.product(densities, numbers):
            mine = [
                (stage, members)
                for (name, share, values, stage), members in groups.items()
                if (name, share) == (method, density)
                and values in (None, levels)
                and stage != "cut"
            ]
            _net(panel, mine, colour, several=len(numbers) > 1)
    for stage in dict.fromkeys(stage for *_, stage in groups if stage != "cut"):
        panel.plot([], [], MARKERS[stage], color="0.3", ms=5, label=words(stage))
    panel.set_xscale("log")


def _net(panel: Any, mine: Sequence[tuple[str, list[Row]]], colour: str, several: bool) -> None:
    """The line of a net through its stages, with its density, and its values if nets differ."""
    points = [
        (stage, [row["factor"] for row in members], [_error(row) for row in members])
        for stage, members in mine
    ]
    across = [float(np.mean(x)) for _, x, _ in points]
    up = [float(np.mean(y)) for *_, y in points]
    panel.plot(across, up, color=colour, lw=0.8, alpha=0.6)
    for (stage, x, y), right, top in zip(points, across, up, strict=True):
        panel.errorbar(
            *(right, top, deviations([y]), deviations([x])),
            marker=MARKERS[stage],
            color=colour,
            ms=5,
            elinewidth=0.6,
            capsize=1.5,
        )
    last = mine[-1][1][0]
    text = f"{100 * last['density']:g} %" + f", {last['levels']:g} values" * several
    panel.text(across[-1], up[-1], text, ha="right", va="bottom", fontsize="small", color=colour)


def _cuts(panel: Any, summary: Sequence[Row]) -> None:
    groups = grouped([row for row in summary if row["method"] != DENSE])
    lines = list(dict.fromkeys((method, stage) for method, _, _, stage in groups))
    methods = list(dict.fromkeys(method for method, _ in lines))
    colours = dict(zip(methods, _colours(methods), strict=True))
    for method, stage in lines:
        mine = sorted(
            ((key[1], members) for key, members in groups.items() if key[::3] == (method, stage)),
            reverse=True,
            key=lambda pair: pair[0],
        )
        errors = [[_error(row) for row in members] for _, members in mine]
        panel.errorbar(
            [100 * density for density, _ in mine],
            [np.mean(values) for values in errors],
            deviations(errors),
            marker=MARKERS[stage],
            color=colours[method],
            ls="--" if stage == "cut" and (method, "pruned") in lines else "-",
            ms=5,
            lw=1.2,
            elinewidth=0.8,
            capsize=2,
            label=f"{words(method)}, {stage}" if len(lines) > len(methods) else words(method),
        )
    shares = sorted({100 * key[1] for key in groups}, reverse=True)
    panel.set_xscale("log")
    panel.set_xticks(shares, [f"{share:g}" for share in shares])
    panel.minorticks_off()
    panel.invert_xaxis()


def _colours(methods: Sequence[str]) -> list[str]:
    return [f"C{i % 10}" for i in range(len(methods))]


def _axes(panel: Any, summary: Sequence[Row], dense: float, published: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    if panel.get_xscale() == "log" and not panel.xaxis_inverted():
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
    shown = max(DEPTH * dense, 10.0 if panel.xaxis_inverted() else 0.0)
    errors = [[_error(row) for row in members] for members in grouped(summary).values()]
    means = [float(np.mean(values)) for values in errors]
    ends = [
        mean + sign * deviation(values)
        for mean, values in zip(means, errors, strict=True)
        for sign in (-1, 1)
    ]
    low, top = min(*ends, *published), min(shown, max(*ends, *published))
    room = 0.1 * (top - low) + 0.02 * dense
    panel.set_ylim(max(0.0, low - room), top + room)
    hidden = sum(mean > shown for mean in means)
    if hidden:
        panel.set_title(f"{hidden} points are above {shown:.1f} %", fontsize="small")
    panel.set_ylabel("test error (%)")
    panel.grid(alpha=0.3)
    legend_beside(panel)


def draw_bytes(folder: Path) -> Path:
    """Draws the mean bytes of files by what they are for, a bar a stage of each net."""
    spec, summary = read_spec(folder), rows.read_summary(folder)
    groups = {
        key: members
        for key, members in grouped(summary).items()
        if key[3] in (CODED if spec["levels"] else STAGES)
    }
    fig, axes = subplots(1, 1, (max(6.4, 2.6 + 0.5 * len(groups)), 5.2))
    panel = axes[0, 0]
    nets = list(dict.fromkeys(key[:3] for key in groups))
    at = [i + 0.8 * nets.index(key[:3]) for i, key in enumerate(groups)]
    below = np.zeros(len(groups))
    for i, part in enumerate(PARTS):
        height = [
            np.mean([row[f"bytes/{part}"] for row in members]) / 1000 for members in groups.values()
        ]
        panel.bar(at, height, 0.8, below, color=f"C{i}", label=part)
        below = below + height
    panel.set_xticks(
        at, [words(key[3]) for key in groups], rotation=45, ha="right", fontsize="small"
    )
    for net in nets:
        mine = [(x, top) for x, top, key in zip(at, below, groups, strict=True) if key[:3] == net]
        method, density, levels = net
        text = f"{words(method)}\n{100 * density:g} %"
        text += f", {levels:g} values" if levels is not None else ""
        middle = float(np.mean([x for x, _ in mine]))
        highest = max(float(top) for _, top in mine)
        panel.text(middle, highest, text, ha="center", va="bottom", fontsize="small")
    panel.set_ylim(0, 1.15 * max(below))
    panel.set_ylabel("file (kB), mean over seeds")
    panel.grid(alpha=0.3, axis="y")
    legend_beside(panel)
    fig.suptitle(f"What bytes are for: {spec['model']} on {spec['dataset']}", fontsize="medium")
    return save(fig, folder, "bytes")
