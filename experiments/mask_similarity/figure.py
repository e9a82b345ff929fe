"""A figure of the similarity of all pairs of masks."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import save, subplots
from experiments.harness.method_figures import label
from experiments.harness.records import read_spec


def draw_similarity(folder: Path) -> Path:
    """Draws the cosine of all pairs of masks, and its difference from chance.

    Each density has a row of panels. Masks are grouped by method. A cell is a pair of different
    masks; the cell of a mask with itself is empty.
    """
    spec = read_spec(folder)
    pairs = [row for row in rows.read_summary(folder) if row["layer"] == "all"]
    densities = sorted({row["density"] for row in pairs}, reverse=True)
    most = max(len(_names(pairs, density)) for density in densities)
    side = 2.4 + max(3.2, 0.2 * most)
    fig, axes = subplots(len(densities), 2, (2 * side + 1, 0.7 + len(densities) * side))
    for line, density in zip(axes, densities, strict=True):
        mine = [row for row in pairs if row["density"] == density]
        names = _names(mine, density)
        cosine, chance = (_matrix(mine, names, field) for field in ("cosine", "chance"))
        top = max(float(np.nanmax(cosine, initial=0.0)), 0.01)
        far = max(float(np.nanmax(np.abs(cosine - chance), initial=0.0)), 0.01)
        panels = (
            (line[0], cosine, {"cmap": "viridis", "vmin": 0, "vmax": top}, "cosine"),
            (
                line[1],
                cosine - chance,
                {"cmap": "RdBu", "vmin": -far, "vmax": far},
                "cosine above that of random masks with the same layer counts",
            ),
        )
        for panel, values, style, title in panels:
            shown = panel.imshow(values, **style)
            fig.colorbar(shown, ax=panel, shrink=0.8)
            _group(panel, [method for method, _ in names])
            panel.set_title(f"density {density:g}: {title}", fontsize="small")
    fig.suptitle(
        f"Similarity of masks: {spec['model']} on {spec['dataset']}, a cell per pair of masks"
    )
    return save(fig, folder, "similarity")


def _names(pairs: list[dict[str, Any]], density: float) -> list[tuple[str, int]]:
    """The method and the seed of each mask, in the order of the masks."""
    return list(
        dict.fromkeys((r["method_a"], r["seed_a"]) for r in pairs if r["density"] == density)
    )


def _matrix(pairs: list[dict[str, Any]], names: list[tuple[str, int]], field: str) -> np.ndarray:
    place = {name: i for i, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    for row in pairs:
        a = place[row["method_a"], row["seed_a"]]
        b = place[row["method_b"], row["seed_b"]]
        if a != b and row[field] is not None:
            values[a, b] = values[b, a] = float(row[field])
    return values


def _group(panel: Any, methods: list[str]) -> None:
    """Labels each method's masks, and draws lines between methods."""
    starts = [i for i, m in enumerate(methods) if not i or methods[i - 1] != m]
    ends = [*starts[1:], len(methods)]
    middles = [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)]
    words = [label(methods[a]).replace("\n", " ") for a in starts]
    panel.set_xticks(middles, words, rotation=60, ha="right", fontsize="small")
    panel.set_yticks(middles, words, fontsize="small")
    for start in starts[1:]:
        panel.axhline(start - 0.5, color="white", lw=1.5)
        panel.axvline(start - 0.5, color="white", lw=1.5)
