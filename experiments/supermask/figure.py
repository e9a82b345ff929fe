"""Figures of Zhou et al.'s study: criteria as pictures, and the accuracy of each combination."""

from pathlib import Path

import jax
import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import (
    legend_beside,
    over_seeds,
    reach,
    save,
    subplots,
    weights_left,
    words,
)
from experiments.harness.records import read_spec
from jaxtickets.criteria import Evidence, find, initial_final


def draw_supermasks(folder: Path) -> Path:
    """Draws test accuracy, untrained and trained, against the weights left.

    Each pair of actions has a row of panels, and each criterion a line. Points are means over
    seeds; error bars reach from the minimum to the maximum.
    """
    spec, summary = read_spec(folder), rows.read_summary(folder)
    found = [row for row in summary if row["method"] != "dense"]
    pairs = list(dict.fromkeys((row["ones"], row["zeros"]) for row in found))
    criteria = list(dict.fromkeys(row["method"] for row in found))
    fig, axes = subplots(len(pairs), 2, (14, 0.8 + 4.2 * len(pairs)))
    for line, pair in zip(axes, pairs, strict=True):
        for panel, when in zip(line, ("untrained", "trained"), strict=True):
            for i, criterion in enumerate(criteria):
                mine = [
                    row
                    for row in found
                    if row["method"] == criterion and (row["ones"], row["zeros"]) == pair
                ]
                left = sorted({row["density"] for row in mine}, reverse=True)
                values = [
                    [100 * r[f"{when}_accuracy"] for r in mine if r["density"] == density]
                    for density in left
                ]
                mean, bars = reach(values)
                style = {"color": f"C{i % 10}", "ls": "-" if i < 10 else "--", "lw": 1.2}
                marks = {"marker": "o", "ms": 3, "capsize": 2, "label": words(criterion)}
                panel.errorbar([100 * d for d in left], mean, bars, **style, **marks)
            dense = [100 * r[f"{when}_accuracy"] for r in summary if r["method"] == "dense"]
            panel.axhline(np.mean(dense), color="0.4", lw=0.8, label="dense")
            weights_left(panel, found)
            panel.set_ylabel(f"test accuracy, {when} (%)")
            panel.set_title(f"kept: {words(pair[0])}; pruned: {words(pair[1])}")
    legend_beside(axes[0, 1])
    seeds = len({row["seed"] for row in found})
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: {over_seeds(seeds, 'mean, minimum to maximum')}"
    )
    return save(fig, folder, "supermasks")


def draw_plane(folder: Path, keep: float = 0.5) -> Path:
    """Draws which weights each criterion keeps, by their initial and final values.

    It is a schematic: weights come from a correlated normal distribution, and the fraction `keep`
    of them is kept (blue).
    """
    names = [name for name in read_spec(folder)["criteria"] if name in initial_final.CRITERIA]
    draw = np.random.default_rng(0)
    first = draw.standard_normal(4000)
    last = 0.7 * first + 0.7 * draw.standard_normal(4000) * 1.2
    columns = max(1, min(len(names), 5))
    lines = max(1, -(-len(names) // columns))
    fig, axes = subplots(lines, columns, (2.6 * columns, 0.6 + 2.7 * lines))
    weights = {"init": {"w": first.astype("f")}, "final": {"w": last.astype("f")}}
    for panel, name in zip(axes.flat, names, strict=False):
        mask = {"w": np.ones(len(first), bool)}
        seen = Evidence(weights["init"], weights["final"], {}, mask, None, None)
        scores = np.asarray(find(name).score(jax.random.key(0), seen)["w"])
        kept = scores >= np.quantile(scores, 1 - keep)
        panel.plot(first[~kept], last[~kept], ".", ms=1.2, color="0.75")
        panel.plot(first[kept], last[kept], ".", ms=1.2, color="C0")
        panel.axhline(0, color="0.3", lw=0.6)
        panel.axvline(0, color="0.3", lw=0.6)
        panel.set_title(words(name), fontsize="small")
        panel.set(xticks=[], yticks=[], xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
        panel.set_aspect("equal")
    for panel in axes.flat[len(names) :]:
        panel.axis("off")
    for panel in axes[-1]:
        panel.set_xlabel("initial value")
    for panel in axes[:, 0]:
        panel.set_ylabel("final value")
    fig.suptitle(f"What criteria keep (blue, {100 * keep:.0f} %): a schematic", fontsize="medium")
    return save(fig, folder, "plane")
