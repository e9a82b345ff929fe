"""Figures of iterative pruning, in the form of the lottery ticket paper's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import reach, save, subplots, weights_left
from experiments.harness.records import read_spec
from experiments.imp_rewind.page import hyper_groups

Rows = Sequence[dict[str, Any]]

STYLES = {
    "ticket": ("ticket", "C0", "-", "o"),
    "reinit": ("ticket's mask, new initialisation", "C1", "--", "s"),
    "random": ("random sparse net", "C2", ":", "^"),
    "shuffled": ("mask shuffled within layers", "C3", "", "x"),
    "resampled": ("weights drawn from the ticket's", "C4", "", "+"),
}
PANELS = (
    ("early_stop_accuracy", 100.0, "test accuracy at early stop (%)"),
    ("early_stop_step", 1.0, "early-stop step"),
    ("trained_accuracy", 100.0, "test accuracy at the end of training (%)"),
)


def draw_all(folder: Path) -> None:
    """Draws all figures of a run."""
    draw_lottery(folder)
    draw_curves(folder)
    draw_layer_densities(folder)
    draw_learning_rates(folder)


def draw_lottery(folder: Path) -> Path:
    """Draws early-stop accuracy and step, and final accuracy, against the weights left.

    Points are means over replicates; error bars reach from the minimum to the maximum. Each
    learning rate and warm-up has a row of panels.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    groups = hyper_groups(summary)
    fig, axes = subplots(len(groups), len(PANELS), (15, 0.8 + 4.2 * len(groups)))
    for line, (hyper, members) in zip(axes, groups.items(), strict=True):
        for panel, (field, scale, label) in zip(line, PANELS, strict=True):
            for method in STYLES:
                _line(panel, members, method, field, scale)
            weights_left(panel, members)
            panel.set_ylabel(label)
            panel.set_title(hyper)
        line[0].legend(frameon=False, fontsize="small")
    seeds = len({row["seed"] for row in summary})
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}, {rewinding(spec)}\n"
        f"mean of {seeds} replicate{'s'[: seeds - 1]} (reinit: {spec['reinits']} each); "
        "bars: minimum to maximum",
        fontsize="medium",
    )
    return save(fig, folder, "lottery")


def draw_curves(folder: Path, most: int = 5) -> Path:
    """Draws test accuracy during training at selected levels, of tickets and of a control.

    Validation accuracy is drawn if test accuracy was recorded less than three times. Lines are
    means over replicates; the band reaches from the minimum to the maximum.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    group = next(iter(hyper_groups(summary).values()))
    seen = [row for row in rows.read_metrics(folder) if str(row["phase"]).startswith("level-")]
    tested = {row["step"] for row in seen if "test_accuracy" in row}
    field = "test_accuracy" if len(tested) > 2 else "accuracy"
    rate = {name: group[0][name] for name in ("rate", "warmup") if name in group[0]}
    seen = [r for r in seen if field in r and all(r[k] == v for k, v in rate.items())]
    other = "reinit" if any(row["method"] == "reinit" for row in seen) else "random"
    levels = sorted({row["level"] for row in group if row["method"] in ("dense", other)})
    chosen = sorted({levels[i] for i in np.linspace(0, len(levels) - 1, most).round().astype(int)})
    fig, axes = subplots(1, 2, (12, 4.6))
    lowest = []
    for panel, method in zip(axes.flat, ("ticket", other), strict=True):
        for i, level in enumerate(chosen):
            mine = [r for r in seen if r["level"] == level and r["method"] in ("dense", method)]
            steps = sorted({row["step"] for row in mine})
            if not steps:
                continue
            values = [[100 * r[field] for r in mine if r["step"] == step] for step in steps]
            left = 100 * np.mean([row["density"] for row in mine])
            mean = [np.mean(v) for v in values]
            panel.plot(steps, mean, color=f"C{i}", lw=1.2, label=f"{left:.3g} %")
            least, most_ = [min(v) for v in values], [max(v) for v in values]
            panel.fill_between(steps, least, most_, color=f"C{i}", alpha=0.15, lw=0)
            lowest += mean[len(mean) // 10 :]
        panel.set(xlabel="training step", title=STYLES[method][0])
        panel.set_ylabel(f"{'test' if field.startswith('test') else 'validation'} accuracy (%)")
        panel.grid(alpha=0.3)
    bottom, top = np.percentile(lowest, 2), max(lowest)  # without the first steps' climb
    room = 0.3 * (top - bottom) or 1.0
    for panel in axes.flat:
        panel.set_ylim(bottom - room, top + room)
    axes.flat[0].legend(frameon=False, title="weights left")
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: training at selected levels; "
        "mean, minimum and maximum of the replicates"
    )
    return save(fig, folder, "curves")


def draw_learning_rates(folder: Path) -> Path | None:
    """Draws final accuracy of tickets and controls, with a panel for each learning rate.

    Returns None if there is only one learning rate. After Liu et al., "Rethinking the value of
    network pruning", 2019: at a high learning rate a ticket isn't better than its mask
    reinitialised; at a low learning rate it is.
    """
    summary, spec = rows.read_summary(folder), read_spec(folder)
    groups = hyper_groups(summary)
    if len(groups) < 2:
        return None
    fig, axes = subplots(1, len(groups), (4.4 * len(groups), 4.4))
    for panel, (hyper, members) in zip(axes.flat, groups.items(), strict=True):
        for method in ("ticket", "reinit", "random"):
            _line(panel, members, method, "trained_accuracy", 100.0)
        weights_left(panel, members)
        panel.set_title(hyper)
    low = min(panel.get_ylim()[0] for panel in axes.flat)
    high = max(panel.get_ylim()[1] for panel in axes.flat)
    for panel in axes.flat:
        panel.set_ylim(low, high)
    axes.flat[0].set_ylabel("test accuracy at the end of training (%)")
    axes.flat[0].legend(frameon=False, fontsize="small")
    fig.suptitle(
        f"Does a ticket beat its mask reinitialised? {spec['model']} on {spec['dataset']}, "
        f"{spec['optimizer']}; mean, minimum and maximum"
    )
    return save(fig, folder, "learning_rates")


def draw_layer_densities(folder: Path) -> Path:
    """Draws the density of each layer of the tickets at every level: mean, minimum, maximum."""
    summary, spec = rows.read_summary(folder), read_spec(folder)
    tickets = [row for row in summary if row["method"] in ("dense", "ticket")]
    layers = [name for name in summary[0] if name.startswith("density/")]
    fig, axes = subplots(1, 1, (6.5, 4.4))
    panel = axes[0, 0]
    for layer in layers:
        name = layer.removeprefix("density/").removesuffix("/kernel")
        _points(panel, tickets, layer, 100.0, {"label": name, "marker": "o", "ms": 4, "lw": 1.2})
    weights_left(panel, tickets)
    panel.set(ylabel="weights left in the layer (%)", yscale="log")
    panel.legend(frameon=False)
    panel.set_title(f"Where tickets keep weights: {spec['model']} on {spec['dataset']}")
    return save(fig, folder, "layers")


def rewinding(spec: dict[str, Any]) -> str:
    """What a run rewinds, in words."""
    words = {
        "weights": f"rewound to step {spec['rewind_step']}",
        "learning_rate": f"learning rate rewound to step {spec['rewind_step']}",
        "none": "fine-tuned, not rewound",
    }
    return words[spec["rewind"]]


def _line(panel: Any, members: Rows, method: str, field: str, scale: float) -> None:
    """Draws a method against the weights left. Lines start at the dense net."""
    label, colour, line, marker = STYLES[method]
    mine = [row for row in members if row["method"] == method]
    if not mine:
        return
    begin = [row for row in members if row["method"] == "dense"] if line else []
    style = {"label": label, "color": colour, "ls": line, "marker": marker, "ms": 4, "lw": 1.2}
    _points(panel, [*begin, *mine], field, scale, style)


def _points(panel: Any, members: Rows, field: str, scale: float, style: dict[str, Any]) -> None:
    levels = sorted({row["level"] for row in members})
    by_level = [[row for row in members if row["level"] == level] for level in levels]
    left = [100 * np.mean([row["density"] for row in level]) for level in by_level]
    values = [[scale * row[field] for row in level] for level in by_level]
    mean, bars = reach(values)
    panel.errorbar(left, mean, bars, capsize=2, elinewidth=0.8, **style)
