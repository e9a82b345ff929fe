"""A figure of the benchmark's ratios and their bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness.canvas import subplots

LOOKS = {
    True: ("#0072B2", "reaches the bar"),
    False: ("#D55E00", "misses the bar"),
    None: ("0.7", "no bar"),
}
LINE, AROUND = 0.25, 0.55
"""The height of a row, and of a panel's margins, in inches."""
TABLE = {"fontsize": 8, "family": "monospace"}
"""The style of the columns on the right."""
Rows = Sequence[dict[str, Any]]


def panels(table: Rows) -> dict[str, Rows]:
    """The panels of the figure: what ratios are relative to -> rows that measure a speed.

    The panel's name is `against` up to its first comma. The text after the comma distinguishes rows
    of a panel.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table:
        if row["ratio"] is not None and (row["bar"] is not None or row["bound"]):
            found.setdefault(row["against"].partition(",")[0], []).append(row)
    return dict(found)


def draw_benchmark(table: Rows, path: Path) -> Path:
    """Draws the ratios as horizontal bars, with a panel for each thing they are relative to.

    Black ticks mark the ratio to reach, and a dotted line marks 1. The columns on the right show
    the measured value and what bounds it.

    Args:
      table: the benchmark's rows, as in its JSON.
      path: the file of the figure.
    """
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found = panels(table)
    sizes = [len(rows) for rows in found.values()]
    height = 1.1 + LINE * sum(sizes) + AROUND * len(sizes)
    fig, axes = subplots(max(len(found), 1), 1, (13, height))
    if found:
        axes[0, 0].get_gridspec().set_height_ratios(sizes)
    for panel, (against, rows) in zip(axes.flat, found.items(), strict=False):
        _panel(panel, rows)
        panel.set_title(against[0].upper() + against[1:], loc="left", weight="bold", fontsize=10)
    heading = _columns("ratio", "measured", "bound by")
    axes[0, 0].annotate(
        heading, (1, 1), (3.5, 4), "axes fraction", "offset points", style="italic", **TABLE
    )
    looks: list[Any] = [Patch(color=colour, label=words) for colour, words in LOOKS.values()]
    looks.append(Line2D([], [], color="k", marker="|", ms=12, mew=2, ls="", label="ratio to reach"))
    fig.legend(handles=looks, loc="outside lower center", ncols=4, frameon=False)
    fig.suptitle("The benchmark's ratios: longer is better", fontsize="x-large")
    fig.savefig(path)
    pyplot.close(fig)
    return path


def _panel(panel: Any, rows: Rows) -> None:
    """Draws the bars of a panel from top to bottom, with text on both sides."""
    for y, row in enumerate(rows):
        panel.barh(y, row["ratio"], color=LOOKS[row["holds"]][0], height=0.7)
        if row["bar"] is not None:
            panel.plot([row["bar"]] * 2, [y - 0.47, y + 0.47], color="k", lw=2.2)
    names = [row["name"] + row["against"][len(row["against"].partition(",")[0]) :] for row in rows]
    most = max(max(row["ratio"], row["bar"] or 0) for row in rows)
    beside = panel.twinx()
    for axis, words, look in (
        (panel, names, {"fontsize": 9}),
        (beside, [_said(row) for row in rows], TABLE),
    ):
        axis.set_yticks(range(len(rows)), words, **look)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right"]].set_visible(False)
    panel.axvline(1, color="0.2", lw=1, ls=":")
    panel.set_xlim(0, 1.05 * max(most, 1))
    panel.tick_params(axis="x", labelsize=8, pad=1)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)


def _said(row: dict[str, Any]) -> str:
    """Ratio, value and bound in columns."""
    value = f"{row['value']:.3g} {row['unit']}"
    return _columns(f"{row['ratio']:.2f}", value, row["bound"])


def _columns(ratio: str, value: str, bound: str) -> str:
    return f"{ratio:>6}   {value:19}{bound:15}"
