"""A figure of what each structure keeps: parameters and multiply-adds."""

from pathlib import Path

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import legend_beside, save, subplots


def draw_shares(folder: Path) -> Path:
    """Draws the shares of units, parameters and multiply-adds that each structure keeps."""
    summary = rows.read_summary(folder)
    fig, axes = subplots(1, 1, (8, 1.6 + 0.24 * len(summary)))
    panel = axes[0, 0]
    places = np.arange(len(summary))
    for (after, before), marker in zip(
        (("left", "units"), ("small_parameters", "parameters"), ("small_adds", "adds")),
        "|os",
        strict=True,
    ):
        shares = [100 * row[after] / row[before] for row in summary]
        panel.plot(
            shares,
            places,
            marker,
            ms=6,
            alpha=0.8,
            label=f"{before}".replace("adds", "multiply-adds"),
        )
    panel.set_yticks(places, [row["structure"] for row in summary], fontsize="small")
    panel.invert_yaxis()
    panel.set(xlim=(0, 100))
    panel.set_xlabel("share that is left (%)")
    panel.grid(alpha=0.3)
    legend_beside(panel)
    fig.suptitle("Half of the units of each group are cut, at random: one draw")
    return save(fig, folder, "shares")
