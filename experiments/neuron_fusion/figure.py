"""Figures of neuron fusion: accuracy against the units left, and the fused units as pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import deviations, legend_beside, over_seeds, save, subplots, words
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
CLUSTERS, PARTNERS = 4, 5
"""The kept units that are drawn, and the units fused into each."""


def draw_accuracies(folder: Path) -> Path:
    """Draws test accuracy against the units left, a line a rule of `which`.

    There is a panel for each way to fuse and to retrain; panels of the same retraining have the
    same scale. Points are means over seeds, whiskers
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
    for panel, (how, retrain) in zip(axes.flat, panels, strict=False):
        mine = [row for row in fused if (row["how"], row["retrain"]) == (how, retrain)]
        panel.axhline(np.mean(accuracies), color="0.5", lw=1, label="dense net")
        for name in [name for name in WHICH if any(row["which"] == name for row in mine)]:
            _line(panel, name, [row for row in mine if row["which"] == name])
        left = sorted({100 * row["units_left"] for row in fused}, reverse=True)
        panel.set_xlim(left[0] + 3, left[-1] - 3)
        panel.set_xticks(left[:: max(1, len(left) // 6)])
        panel.xaxis.set_major_formatter("{x:.3g}")
        alike = [100 * row["trained_accuracy"] for row in fused if row["retrain"] == retrain]
        most = max(*alike, *accuracies)
        panel.set_ylim(min(alike) - 0.05 * (most - min(alike)), most + 0.05 * (most - min(alike)))
        panel.set_title(f"{how}, {AFTER[retrain]}", fontsize="medium")
        panel.set(xlabel="units left (%)", ylabel="test accuracy (%)")
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    legend_beside(axes[0, -1])
    sparse = f", {100 * before:g} % of the weights before" if before < 1 else ""
    fig.suptitle(
        f"Fused units of {spec['model']} on {spec['dataset']}{sparse}: {over_seeds(spec['seeds'])}",
        fontsize="medium",
    )
    return save(fig, folder, "accuracies")


def draw_fused(
    folder: Path, kernel: np.ndarray, image: Sequence[int], partners: Mapping[str, Partners]
) -> Path:
    """Draws kept units of the first layer and the units fused into them, as pixels.

    Each rule of `which` has a panel. A row is a kept unit (on the left) and units that are fused
    into it, the most similar first; above each stands the cosine of its weights with those of the
    kept unit. Rows are the kept units with the most partners. Channels of an image are averaged;
    the weights of each unit are scaled by the largest of them.

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
    wide = min(MOST_PANELS, len(partners))
    high = -(-len(partners) // wide)
    fig, axes = subplots(high, wide, (4.2 * wide, 3.9 * high + 0.4))
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, (name, one) in zip(axes.flat, partners.items(), strict=False):
        _mosaic(panel, pixels, vectors @ vectors.T, one)
        panel.set_title(words(name), fontsize="medium")
    amount = [*spec["counts"], *spec["cosines"], *spec["cuts"]][0]
    fig.suptitle(
        f"Incoming weights of the first fused layer of {spec['model']} on {spec['dataset']} "
        f"(red: positive, blue: negative), {_amount(spec)} {amount}, seed {spec['seed']}: kept "
        "units with the most partners, and the cosines of the units fused into them",
        fontsize="medium",
    )
    return save(fig, folder, "fused")


def _amount(spec: Row) -> str:
    if spec["counts"]:
        return "units left"
    return "pairs of a cosine above" if spec["cosines"] else "a fused share of"


def _mosaic(panel: Any, pixels: np.ndarray, cosines: np.ndarray, partners: Partners) -> None:
    """Draws kept units and the units fused into them, row by row."""
    block = clusters_of(partners, cosines)
    _, h, w = pixels.shape
    above, beside, apart = 0.4 * h, 0.1 * w, 0.4 * w
    right, bottom = apart + (PARTNERS + 1) * (w + beside), CLUSTERS * (h + above)
    for row, (kept, members) in enumerate(block):
        top = row * (h + above) + above
        for column, unit in enumerate([kept, *members]):
            left = column * (w + beside) + (apart if column else 0)
            most = np.nanmax(np.abs(pixels[unit])) or 1
            where = (left, left + w, top + h, top)
            panel.imshow(pixels[unit] / most, cmap="RdBu_r", vmin=-1, vmax=1, extent=where)
            text = f"{cosines[kept, unit]:.2f}" if column else "kept"
            panel.text(left + w / 2, top - 0.08 * h, text, ha="center", va="bottom", fontsize=6)
    if not block:
        panel.text(0, 0, "no unit has a partner", fontsize="small", va="top")
    panel.set_xlim(0, right)
    panel.set_ylim(bottom, 0)


def pixels_of(kernel: np.ndarray, image: Sequence[int]) -> np.ndarray:
    """float`[units, h, w]`: the units' weights as pixels, with the mean over channels.

    Weights of a dense layer that doesn't read the image are put into a square, row by row.
    """
    if kernel.ndim > 2:
        return np.moveaxis(kernel.mean(-2), -1, 0)
    if kernel.shape[0] == np.prod(image):
        return np.asarray(kernel.T.reshape(-1, *image).mean(-1))
    side = int(np.ceil(np.sqrt(kernel.shape[0])))
    square = np.full((kernel.shape[1], side * side), np.nan)
    square[:, : kernel.shape[0]] = kernel.T
    return square.reshape(-1, side, side)


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
        deviations(right),
        marker=MARKERS[at % len(MARKERS)],
        color=f"C{at % 10}",
        ms=5,
        lw=1.2,
        elinewidth=0.8,
        capsize=2,
        label=words(name),
    )
