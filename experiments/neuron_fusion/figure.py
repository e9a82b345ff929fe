"""Figures of neuron fusion: accuracy against the units left, and the fused units as pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import deviation, legend_beside, save, subplots, words
from experiments.harness.records import read_spec
from experiments.harness.rows import Row
from experiments.neuron_fusion.retraining import DENSE
from jaxtickets.compress.fusion import WHICH, Partners

MARKERS = "os^vDP<>X"
AFTER = {
    "none": "not retrained",
    "statistics": "batch-norm statistics estimated again",
    "finetune": "fine-tuned",
    "full": "trained in full",
}
MOST_PANELS = 3
"""In a row."""
CLUSTERS, PARTNERS = 8, 5
"""The kept units that are drawn, and the units fused into each."""


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy against the units left, a line a rule of `which`.

    There is a panel for each way to fuse and to retrain. Points are means over seeds, whiskers
    sample standard deviations. Nets that were sparse before fusion are left out, unless all were.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    fused = [row for row in summary if row["which"] != DENSE]
    before = max(row["before_density"] for row in fused)
    fused = [row for row in fused if row["before_density"] == before]
    panels = list(dict.fromkeys((row["how"], row["retrain"]) for row in _by_panel(spec, fused)))
    wide = min(MOST_PANELS, len(panels))
    high = -(-len(panels) // wide)
    fig, axes = subplots(high, wide, (4.0 * wide + 1.8, 3.5 * high + 0.5))
    accuracies = [100 * row["trained_accuracy"] for row in summary if row["which"] == DENSE]
    least = min(100 * row["trained_accuracy"] for row in fused)
    for panel, (how, retrain) in zip(axes.flat, panels, strict=False):
        mine = [row for row in fused if (row["how"], row["retrain"]) == (how, retrain)]
        panel.axhline(np.mean(accuracies), color="0.5", lw=1, label="dense net")
        for name in [name for name in WHICH if any(row["which"] == name for row in mine)]:
            _line(panel, name, [row for row in mine if row["which"] == name])
        left = sorted({100 * row["units_left"] for row in fused}, reverse=True)
        panel.set_xlim(left[0] + 3, left[-1] - 3)
        panel.set_xticks(left[:: max(1, len(left) // 6)])
        panel.xaxis.set_major_formatter("{x:.3g}")
        panel.set_ylim(max(0, least - 3), 100 if max(accuracies) > 96 else max(accuracies) + 2)
        panel.set_title(f"{how}, {AFTER[retrain]}", fontsize="medium")
        panel.set(xlabel="units left (%)", ylabel="test accuracy (%)")
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    legend_beside(axes[0, -1])
    sparse = f", {100 * before:g} % of the weights before" if before < 1 else ""
    fig.suptitle(
        f"Fused units of {spec['model']} on {spec['dataset']}{sparse}: "
        f"n = {spec['seeds']}, mean ± standard deviation",
        fontsize="medium",
    )
    return save(fig, folder, "accuracies")


def draw_fused(
    folder: Path, kernel: np.ndarray, image: Sequence[int], partners: Mapping[str, Partners]
) -> Path:
    """Draws kept units of the first layer and the units fused into them, as pixels.

    Each rule of `which` has a block, each row a kept unit (on the left) and the units that are
    fused into it, the most similar first, above each its cosine. Rows are the kept units with the
    most partners. Channels of an image are averaged; each unit has its own symmetric scale.

    Args:
      folder: the run's folder.
      kernel: the weights of the first layer whose units are fused, `[..., inputs, units]`.
      image: the shape of an image.
      partners: rule -> where the units went.
    """
    spec = read_spec(folder)
    pixels = pixels_of(kernel, image)
    vectors = kernel.reshape(-1, kernel.shape[-1]).T
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = vectors @ vectors.T
    blocks = {name: clusters_of(one, cosines) for name, one in partners.items()}
    high = max(1, *(len(block) for block in blocks.values()))
    across = PARTNERS + 2
    fig, axes = subplots(
        high, across * len(blocks) - 1, (0.62 * across * len(blocks), 0.8 * high + 1)
    )
    for panel in axes.flat:
        panel.set_axis_off()
    for i, (name, block) in enumerate(blocks.items()):
        for row, (kept, members) in enumerate(block):
            for column, unit in enumerate([kept, *members]):
                panel = axes[row, i * across + column]
                most = np.abs(pixels[unit]).max() or 1
                panel.imshow(pixels[unit], cmap="RdBu_r", vmin=-most, vmax=most)
                text = f"{cosines[kept, unit]:.2f}" if column else "kept"
                panel.set_title(text, fontsize=7, pad=2)
        axes[0, i * across].text(
            0, 1.5, words(name), transform=axes[0, i * across].transAxes, fontsize="medium"
        )
    fig.suptitle(
        f"Incoming weights of fused units, {spec['model']} on {spec['dataset']}; first amount, "
        "first seed; numbers: cosine with the kept unit",
        fontsize="medium",
    )
    return save(fig, folder, "fused")


def pixels_of(kernel: np.ndarray, image: Sequence[int]) -> np.ndarray:
    """float`[units, h, w]`: the units' weights as pixels, with the mean over channels."""
    if kernel.ndim > 2:
        return np.moveaxis(kernel.mean(-2), -1, 0)
    if kernel.shape[0] == np.prod(image):
        return np.asarray(kernel.T.reshape(-1, *image).mean(-1))
    return kernel.T[:, None]


def clusters_of(partners: Partners, cosines: np.ndarray) -> list[tuple[int, list[int]]]:
    """Kept units and the units fused into them, those with the most partners first."""
    kept = np.flatnonzero(partners.kept)
    parts = np.where(partners.kept[:, None], 0, partners.share)
    home = np.where(parts.any(1), parts.argmax(1), -1)
    many = {int(k): np.flatnonzero(home == k) for k in kept}
    ordered = sorted(many, key=lambda k: -len(many[k]))[:CLUSTERS]
    return [
        (k, [int(u) for u in sorted(many[k], key=lambda u: -cosines[k, u])[:PARTNERS]])
        for k in ordered
        if len(many[k])
    ]


def _by_panel(spec: Row, fused: Sequence[Row]) -> list[Row]:
    retrain, how = list(spec["retrain"]), list(spec["how"])
    return sorted(fused, key=lambda row: (retrain.index(row["retrain"]), how.index(row["how"])))


def _line(panel: Any, name: str, members: Sequence[Row]) -> None:
    at = list(WHICH).index(name)
    points: dict[str, list[Row]] = {}
    for row in members:
        points.setdefault(str(row["asked"]), []).append(row)
    ordered = sorted(points.values(), key=lambda mine: -np.mean([r["units_left"] for r in mine]))
    right = [[100 * row["trained_accuracy"] for row in mine] for mine in ordered]
    panel.errorbar(
        [100 * np.mean([row["units_left"] for row in mine]) for mine in ordered],
        [np.mean(values) for values in right],
        [deviation(values) for values in right],
        marker=MARKERS[at % len(MARKERS)],
        color=f"C{at % 10}",
        ms=5,
        lw=1.2,
        elinewidth=0.8,
        capsize=2,
        label=words(name),
    )
