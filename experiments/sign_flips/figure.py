"""Figures of sign flips: who flips, what early flips predict, and pruning by flips."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import (
    deviation,
    deviations,
    legend_beside,
    over_seeds,
    save,
    subplots,
)
from experiments.harness.records import read_spec
from experiments.sign_flips.page import (
    ALL,
    DENSE,
    PREDICTORS,
    at_best_rate,
    best_rate,
    grouped,
    layers_of,
)

Row = dict[str, Any]
MOST_LAYERS = 6
"""Layers that have a line; of deeper nets, equally spaced ones."""
FAR = 4
"""How far an axis of accuracies reaches down, in distances of the dense net from the median."""


def draw_flips(folder: Path) -> Path:
    """Draws flips a weight by layer over the training, a panel for each learning rate.

    Lines are means over seeds, bands sample standard deviations.
    """
    found = _dense_metrics(folder)
    rates = list(grouped(found, "rate"))
    fig, axes = subplots(1, len(rates), (3.6 * len(rates) + 1.6, 3.6))
    for panel, (rate,) in zip(axes.flat, rates, strict=True):
        _over_time(panel, [row for row in found if row["rate"] == rate], legend=False)
        panel.set_title(f"learning rate {rate:g}", fontsize="medium")
    axes.flat[0].set_ylabel("flips of a weight so far")
    for panel in axes.flat[1:]:
        panel.set_ylabel("")
    legend_beside(axes.flat[-1])
    fig.suptitle(_title(folder, "Sign flips in dense training"))
    return save(fig, folder, "flips")


def draw_overview(folder: Path) -> Path:
    """Draws six panels: flips over time, by |w|, survival by flips; predictors; accuracies.

    Dense nets are those of the rate that is best on validation data. Lines are means over seeds,
    bands and whiskers sample standard deviations.
    """
    summary = rows.read_summary(folder)
    rate = best_rate([row for row in summary if row["rule"] == DENSE])
    bins, flips, predictors = (
        [row for row in rows.read_csv(folder / f"{name}.csv") if row["rate"] == rate]
        for name in ("bins", "flips", "predictors")
    )
    fig, axes = subplots(2, 3, (15, 8))
    _over_time(axes[0, 0], [row for row in _dense_metrics(folder) if row["rate"] == rate])
    _by_size(axes[0, 1], [row for row in bins if row["bin"] is not None], flips)
    _survival(axes[0, 2], [row for row in bins if row["group"] is not None])
    _predictors(axes[1, 0], [row for row in predictors if row["layer"] == ALL])
    pruned = {key: mine for key, mine in at_best_rate(summary).items() if mine[0]["rule"] != DENSE}
    dense = [row for row in summary if row["rule"] == DENSE and row["rate"] == rate]
    densities = sorted({density for density, *_ in pruned}, reverse=True)
    shown = [densities[0], densities[-1]] if len(densities) > 1 else densities
    for panel, density in zip(axes[1, 1:], shown, strict=False):
        _accuracies(panel, {key[1:]: m for key, m in pruned.items() if key[0] == density}, dense)
        panel.set_title(
            f"pruned while training to {100 * density:g} %, best rate", fontsize="medium"
        )
    for panel in axes.flat[4 + max(1, len(shown)) :]:
        panel.set_axis_off()
    fig.suptitle(_title(folder, f"Sign flips; dense nets at learning rate {rate:g}"))
    return save(fig, folder, "overview")


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy by rule: a row of panels a density, a column a learning rate."""
    summary = rows.read_summary(folder)
    pruned = [row for row in summary if row["rule"] != DENSE]
    densities = sorted({row["density"] for row in pruned}, reverse=True)
    rates = list(grouped(summary, "rate"))
    fig, axes = subplots(len(densities), len(rates), (4.2 * len(rates) + 1.2, 3.4 * len(densities)))
    for line, density in zip(axes, densities, strict=True):
        for panel, (rate,) in zip(line, rates, strict=True):
            mine = [row for row in pruned if (row["density"], row["rate"]) == (density, rate)]
            dense = [row for row in summary if row["rule"] == DENSE and row["rate"] == rate]
            _accuracies(panel, grouped(mine, "rule", "variant"), dense, legend=False)
            panel.set_title(f"{100 * density:g} % of the weights, rate {rate:g}", fontsize="medium")
        legend_beside(line[-1])
    fig.suptitle(_title(folder, "Pruning while training"))
    return save(fig, folder, "accuracies")


def _title(folder: Path, what: str) -> str:
    spec = read_spec(folder)
    return f"{what}: {spec['model']} on {spec['dataset']}, {over_seeds(spec['seeds'])}"


def _dense_metrics(folder: Path) -> list[Row]:
    return [row for row in rows.read_metrics(folder) if row["phase"] == DENSE]


def _some(layers: Sequence[str]) -> list[str]:
    if len(layers) <= MOST_LAYERS:
        return list(layers)
    return [layers[i] for i in np.linspace(0, len(layers) - 1, MOST_LAYERS).astype(int)]


def _band(
    panel: Any,
    found: Sequence[Row],
    x: str,
    value: Callable[[Row], float],
    place: Callable[[Any], float] = float,
    **style: Any,
) -> None:
    """A line of means over seeds against the field `x`, with a band of the standard deviation."""
    groups = sorted(grouped(found, x).items())
    at = [place(key) for (key,), _ in groups]
    values = [[value(row) for row in mine] for _, mine in groups]
    mean, spread = np.array([np.mean(v) for v in values]), np.array([*map(deviation, values)])
    (line,) = panel.plot(at, mean, lw=1.3, ms=4, **style)
    panel.fill_between(at, mean - spread, mean + spread, color=line.get_color(), alpha=0.2, lw=0)


def _over_time(panel: Any, found: Sequence[Row], legend: bool = True) -> None:
    names = _some([name for name in found[0] if name.startswith("flips/")])
    for name in names:
        label = name.removeprefix("flips/").removesuffix("/kernel")
        _band(panel, found, "step", itemgetter(name), label=label)
    panel.set(xlabel="training step", ylabel="flips of a weight so far", xlim=(0, None))
    panel.set_ylim(bottom=0)
    panel.set_title("by layer, over time", fontsize="medium")
    panel.grid(alpha=0.3)
    if legend:
        panel.legend(frameon=False, fontsize="small")


def _by_size(panel: Any, bins: Sequence[Row], flips: Sequence[Row]) -> None:
    many = 1 + max(row["bin"] for row in bins)
    for layer in _some(layers_of(bins)):
        mine = [row for row in bins if row["layer"] == layer]
        style = {"color": "k", "ls": "--"} if layer == ALL else {}
        _band(
            panel,
            mine,
            "bin",
            itemgetter("flips"),
            lambda i: 100 * (i + 0.5) / many,
            label=f"{layer} weights" if layer == ALL else layer,
            **style,
        )
    for (density,) in grouped(flips, "density"):
        panel.axvline(100 * (1 - density), color="0.5", lw=0.9, ls=":")
        panel.annotate(
            f"{100 * density:g} % kept of all",
            (100 * (1 - density), 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="right",
            va="top",
            fontsize="x-small",
            color="0.35",
        )
    panel.set(xlabel="percentile of |w| in the layer at the end", ylabel="flips of a weight")
    panel.set_xlim(0, 100)
    panel.set_ylim(bottom=0)
    panel.set_title("by final size", fontsize="medium")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize="small", loc="upper center")


def _survival(panel: Any, groups: Sequence[Row]) -> None:
    lows = sorted({row["group"] for row in groups})
    for (density,), mine in grouped(groups, "density").items():
        _band(
            panel,
            mine,
            "group",
            lambda row: 100 * row["survive"],
            lows.index,
            marker="o",
            label=f"{100 * density:g} % kept of all",
        )
    ends = [*(low - 1 for low in lows[1:]), None]
    names = [
        f"{low}+" if end is None else str(low) if low == end else f"{low}-{end}"
        for low, end in zip(lows, ends, strict=True)
    ]
    panel.set_xticks(range(len(lows)), names)
    panel.set(xlabel="flips in the whole training", ylabel="weights that survive the cut (%)")
    panel.set_ylim(bottom=0)
    panel.set_title("survival of magnitude pruning at the end", fontsize="medium")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize="small")


def _predictors(panel: Any, found: Sequence[Row]) -> None:
    for d, ((density,), mine) in enumerate(grouped(found, "density").items()):
        for i, (field, name) in enumerate(PREDICTORS.items()):
            _band(
                panel,
                mine,
                "early",
                itemgetter(field),
                lambda share: 100 * share,
                color=f"C{i}",
                ls=("-", "--", ":", "-.")[d % 4],
                marker=("o", "s", "^")[i],
                label=f"{name}, {100 * density:g} % kept",
            )
    panel.axhline(0.5, color="0.5", lw=0.9)
    panel.annotate(
        "chance", (0.02, 0.49), xycoords=("axes fraction", "data"), va="top", color="0.35"
    )
    panel.set_ylim(top=1.02)
    panel.set_ylim(bottom=min(0.45, panel.get_ylim()[0]))
    panel.set_xticks([100 * early for (early,) in sorted(grouped(found, "early"))])
    panel.set(xlabel="known at % of the training", ylabel="area under the curve")
    panel.set_title("predicting what is pruned at the end", fontsize="medium")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize="x-small")


def _accuracies(
    panel: Any, groups: dict[Any, list[Row]], dense: Sequence[Row], legend: bool = True
) -> None:
    """Test accuracy of each (rule, variant): a place a rule, a colour a variant."""
    rules = list(dict.fromkeys(rule for rule, _ in groups))
    variants = list(dict.fromkeys(variant for _, variant in groups))
    for i, variant in enumerate(variants):
        there = [rule for rule in rules if (rule, variant) in groups]
        values = [[100 * row["trained_accuracy"] for row in groups[r, variant]] for r in there]
        panel.errorbar(
            [rules.index(rule) + 0.6 * ((i + 0.5) / len(variants) - 0.5) for rule in there],
            [np.mean(v) for v in values],
            deviations(values),
            fmt="o",
            ms=5,
            capsize=3,
            color=f"C{i}",
            label=variant,
        )
    top = np.mean([100 * row["trained_accuracy"] for row in dense])
    panel.axhline(top, color="0.4", lw=0.9, label="dense net")
    means = {
        key: np.mean([100 * row["trained_accuracy"] for row in mine])
        for key, mine in groups.items()
    }
    median = np.median([*means.values()])
    low = max(median - FAR * max(top - median, 0.5), 0)
    for (rule, _), mean in means.items():
        if mean < low:  # a poor control would flatten the others
            place = rules.index(rule), 0.02
            far = f"{mean:.1f} %\n$\\downarrow$"
            panel.annotate(far, place, xycoords=("data", "axes fraction"), ha="center")
    if min(means.values()) < low:
        panel.set_ylim(bottom=low)
    panel.set_xticks(range(len(rules)), rules)
    panel.set_xlim(-0.5, len(rules) - 0.5)
    panel.set_ylabel("test accuracy (%)")
    panel.grid(axis="y", alpha=0.3)
    if legend:
        panel.legend(fontsize="small", loc="best", framealpha=0.8)
