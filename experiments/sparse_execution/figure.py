"""A figure of the times of sparse forms relative to the dense net's."""

from pathlib import Path
from typing import Any

from experiments.harness import rows
from experiments.harness.canvas import legend_beside, save, subplots, words

MARKERS = "sDov^P"


def draw_sparse(folder: Path) -> Path:
    """Draws dense time / form's time against density.

    Each net has a row of panels, and each kind of work a column. Each form has a line over random
    masks: the median of paired calls, with quartiles as error bars. Tickets are hollow marks.
    """
    summary = [row for row in rows.read_summary(folder) if row["ratio"] is not None]
    models = list(dict.fromkeys(row["model"] for row in summary))
    works = list(dict.fromkeys((row["work"], row["batch"]) for row in summary))
    forms = list(dict.fromkeys(row["form"] for row in summary))
    size = (3.6 * len(works) + 1.8, 3.7 * len(models) + 0.5)
    fig, axes = subplots(len(models), len(works), size)
    for line, model in zip(axes, models, strict=True):
        for panel, work in zip(line, works, strict=True):
            mine = [r for r in summary if (r["model"], r["work"], r["batch"]) == (model, *work)]
            for i, form in enumerate(forms):
                _form(panel, [row for row in mine if row["form"] == form], i, form)
            _axes(panel, mine)
            images = f"{work[1]} image" + ("s" if work[1] > 1 else "")
            panel.set_title(f"{model}: {work[0]}, {images}", fontsize="medium")
    for line in axes:
        line[0].set_ylabel("time of the dense net / time")
    legend_beside(axes[0, -1])
    fig.suptitle(
        "Above the line, skipping zeros is faster. Medians and quartiles of paired calls, "
        "random masks" + ("; hollow: tickets" if any(map(_ticket, summary)) else "")
    )
    return save(fig, folder, "sparse")


def _ticket(row: dict[str, Any]) -> bool:
    return row["mask"] != "random"


def _form(panel: Any, mine: list[dict[str, Any]], i: int, form: str) -> None:
    curve = sorted((row for row in mine if not _ticket(row)), key=lambda row: row["density"])
    for some, style in (
        (curve, {"ls": "-", "label": words(form)}),
        ([row for row in mine if _ticket(row)], {"ls": "", "mfc": "none", "ms": 7}),
    ):
        if some:
            ratios = [row["ratio"] for row in some]
            bars = [
                [row["ratio"] - row["ratio_low"] for row in some],
                [row["ratio_high"] - row["ratio"] for row in some],
            ]
            left = [100 * row["density"] for row in some]
            look = {"color": f"C{i}", "marker": MARKERS[i], "ms": 4, "lw": 1.2, "capsize": 2}
            panel.errorbar(left, ratios, bars, **{**look, **style})


def _axes(panel: Any, mine: list[dict[str, Any]]) -> None:
    panel.axhline(1, color="0.3", lw=1)
    panel.set(xscale="log", yscale="log", xlabel="weights left (%)")
    left = sorted({100 * row["density"] for row in mine if not _ticket(row)})
    panel.set_xticks(left, [f"{tick:g}" for tick in left], fontsize="small")
    panel.minorticks_off()
    panel.invert_xaxis()
    low, high = panel.get_ylim()
    ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if low <= t <= high]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.grid(alpha=0.3)
