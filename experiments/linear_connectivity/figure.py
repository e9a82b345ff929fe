"""Figures of linear connectivity: the error between two trainings that part at a step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import over_seeds, reach, save, subplots
from experiments.harness.records import read_spec

METHODS = {"ticket": ("ticket", "-", "o"), "shuffled": ("random mask", "--", "s")}


def draw_barriers(folder: Path) -> Path:
    """Draws the barrier of test error against the rewind step, and against the weights left.

    Points are means over seeds; error bars reach from the minimum to the maximum.
    """
    summary, spec = _pairs(folder), read_spec(folder)
    rewinds = sorted({row["rewind"] for row in summary})
    levels = sorted({row["level"] for row in summary})
    fig, axes = subplots(1, 3, (15, 4.6))
    shown = [levels[i] for i in sorted({0, len(levels) // 2, len(levels) - 1})]
    for method, (label, line, marker) in METHODS.items():
        style = {"ls": line, "marker": marker, "ms": 4, "lw": 1.2, "capsize": 2}
        for i, level in enumerate(shown):
            mine = [r for r in summary if r["level"] == level and _is(r, method)]
            left = f"{100 * mine[0]['density']:.3g} % left" if mine else ""
            if mine and not (level == 0 and method != "ticket"):
                name = f"{'dense' if level == 0 else label}, {left}"
                _bars(axes[0, 0], mine, "rewind", 1.0, {**style, "color": f"C{i}", "label": name})
        for i, rewind in enumerate(rewinds):
            mine = [r for r in summary if r["rewind"] == rewind and _is(r, method)]
            panel = axes[0, 1 if method == "ticket" else 2]
            name = f"parted at step {rewind}"
            _bars(panel, mine, "density", 100.0, {**style, "color": f"C{i}", "label": name})
            panel.set_title(label)
    first = axes[0, 0]
    first.set_xscale("symlog", linthresh=max(1, min([r for r in rewinds if r] or [1])))
    first.set_xticks(rewinds, [str(r) for r in rewinds])
    first.set(xlabel="step at which the two trainings part", title="by rewind step")
    for panel in axes[0, 1:]:
        panel.set_xscale("log")
        ticks = sorted({round(100 * row["density"], 1) for row in summary}, reverse=True)
        panel.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        panel.minorticks_off()
        panel.invert_xaxis()
        panel.set_xlabel("weights left (%)")
    top = max(panel.get_ylim()[1] for panel in axes.flat)
    for panel in axes.flat:
        panel.axhline(2, color="0.6", lw=0.8, ls=":")  # below: linearly connected
        panel.set_ylim(-1, max(top, 4))
        panel.set_ylabel("barrier of test error (points)")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize="small")
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: error barrier between two trainings that part; "
        f"{over_seeds(seeds, 'mean, minimum to maximum')}; dotted: 2 points, the paper's bound"
    )
    return save(fig, folder, "barriers")


def draw_lines(folder: Path) -> Path:
    """Draws test error on the line between the two trainings, with a panel per rewind step."""
    spec = read_spec(folder)
    seen = [row for row in rows.read_metrics(folder) if row["phase"] == "line"]
    rewinds = sorted({row["rewind"] for row in seen})
    levels = sorted({row["level"] for row in seen})
    fig, axes = subplots(1, len(rewinds), (3.6 * len(rewinds) + 1, 4.4))
    for panel, rewind in zip(axes.flat, rewinds, strict=True):
        for i, level in enumerate(levels):
            for method, (label, line, _) in METHODS.items():
                if level == 0 and method != "ticket":
                    continue
                mine = [
                    r
                    for r in seen
                    if r["rewind"] == rewind and r["level"] == level and _is(r, method)
                ]
                if not mine:
                    continue
                alphas = sorted({row["alpha"] for row in mine})
                values = [[100 * r["test_error"] for r in mine if r["alpha"] == a] for a in alphas]
                name = f"{'dense' if level == 0 else label}, {100 * mine[0]['density']:.3g} %"
                colour = f"C{i % 10}"
                panel.plot(alphas, [np.mean(v) for v in values], line, color=colour, label=name)
                low, high = [min(v) for v in values], [max(v) for v in values]
                panel.fill_between(alphas, low, high, color=colour, alpha=0.1, lw=0)
        panel.set(title=f"parted at step {rewind}", xlabel="position on the line")
        panel.grid(alpha=0.3)
    top = max(panel.get_ylim()[1] for panel in axes.flat)
    for panel in axes.flat:
        panel.set_ylim(0, top)
    axes.flat[0].set_ylabel("test error (%)")
    axes.flat[-1].legend(
        frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5)
    )
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: from one training to the other; "
        "mean over seeds, band from minimum to maximum"
    )
    return save(fig, folder, "lines")


def _pairs(folder: Path) -> list[dict[str, Any]]:
    return [row for row in rows.read_summary(folder) if row["order"] == 0]


def _is(row: dict[str, Any], method: str) -> bool:
    return row["method"] in (method, "dense")


def _bars(
    panel: Any, members: Sequence[dict[str, Any]], field: str, scale: float, style: dict[str, Any]
) -> None:
    places = sorted({row[field] for row in members})
    values = [[100 * r["test_barrier"] for r in members if r[field] == p] for p in places]
    mean, ends = reach(values)
    panel.errorbar([scale * p for p in places], mean, ends, elinewidth=0.8, **style)
