"""The picture of a run: the champion's graph, accuracy by shared weight, fronts of generations."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import save
from experiments.harness.records import read_spec
from jaxtickets.search.graphs import layered
from jaxtickets.search.graphs.activations import ACTIVATIONS
from jaxtickets.search.graphs.genome import Genome, Sizes
from jaxtickets.search.graphs.layered import Structure

FRONTS = 6
"""How many generations' fronts are drawn."""
OUTPUT_COLOUR = "0.2"
INPUT_LINE, INNER_LINE = {"color": "0.82", "lw": 0.4}, {"color": "0.6", "lw": 0.7}
MARKERS = "os^vDPX<>*"
"""By activation: a page's picture has few colours, so that shapes tell more than these."""
LOW, HIGH = 0.32, 0.675
"""Where the image of pixels lies in the panel of the graph; its width is 1."""
BIAS = 0.5, 0.22


def draw_overview(folder: Path, graph: Genome, sizes: Sizes) -> Path:
    """Draws the three panels; the graph is the first seed's champion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    spec = read_spec(folder)
    fig = pyplot.figure(figsize=(13, 7.5), layout="constrained", dpi=120)
    grid = fig.add_gridspec(2, 2, width_ratios=(1.7, 1))
    draw_graph(fig.add_subplot(grid[:, 0]), layered.structure(graph, sizes))
    draw_shared_weights(fig.add_subplot(grid[0, 1]), folder)
    draw_fronts(fig.add_subplot(grid[1, 1]), folder, spec["seed"])
    fig.suptitle(
        f"Weight-agnostic nets on {spec['dataset']}: {spec['generations']:,} generations of"
        f" {spec['population']} graphs"
    )
    return save(fig, folder, "overview")


def draw_graph(panel: Any, graph: Structure) -> None:
    """Draws a graph: its pixels as the image on the left, then its layers, its outputs last.

    A pixel is as dark as it has connections; nodes of a layer stand above each other.
    """
    sizes, reads = graph.sizes, graph.source - graph.sizes.inputs - 1
    side = round(sizes.inputs**0.5)
    last = int(graph.layer[: sizes.outputs].max())
    place = np.zeros((graph.layer.size, 2))
    for layer in range(1, last + 1):
        members = np.flatnonzero(graph.layer == layer)
        if layer < last:  # near to what each reads, so that fewer lines cross
            members = members[np.argsort(_heights(graph, members, place, side), kind="stable")]
            members = members[::-1]
        place[members, 0] = 1.35 + 2.0 * (layer - 1) / max(last - 1, 1)
        place[members, 1] = _spread(len(members))

    counts = np.bincount(graph.source[reads < 0], minlength=sizes.inputs + 1)
    image = counts[: sizes.inputs].reshape(side, side)
    panel.imshow(image, cmap="Greys", extent=(0, 1, LOW, HIGH), vmax=max(image.max(), 1) * 1.3)
    panel.plot(*BIAS, "s", color="0.4", ms=5)
    panel.text(BIAS[0], BIAS[1] - 0.025, "bias", ha="center", va="top", fontsize="small")
    text = f"{side}x{side} pixels; darker: read more often"
    panel.text(0.5, HIGH + 0.02, text, ha="center", fontsize="small")
    for source, target in zip(graph.source, graph.target, strict=True):
        inner = source > sizes.inputs
        start = place[source - sizes.inputs - 1] if inner else _input_place(source, side)
        look = INNER_LINE if inner else INPUT_LINE
        (x, y), (to_x, to_y) = start, place[target]
        panel.plot([x, to_x], [y, to_y], zorder=1, **look)
    hidden = np.flatnonzero((graph.layer > 0) & (np.arange(graph.layer.size) >= sizes.outputs))
    for number, activation in enumerate(ACTIVATIONS):
        mine = hidden[graph.activation[hidden] == number]
        if mine.size:
            label = f"{activation.name} ({mine.size})"
            look = {"s": 42, "marker": MARKERS[number], "color": "C0"}
            panel.scatter(*place[mine].T, label=label, zorder=2, **look)
    panel.scatter(*place[: sizes.outputs].T, s=90, color=OUTPUT_COLOUR, zorder=2)
    for row in range(sizes.outputs):
        panel.text(*place[row], str(row), color="w", ha="center", va="center", fontsize=8, zorder=3)
    if hidden.size:
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=5, frameon=False)
    panel.set(xlim=(-0.05, 3.45), ylim=(-0.02, 1.02))
    panel.set_aspect("auto")
    panel.axis("off")
    panel.set_title(
        f"The champion: {graph.source.size} connections that reach an output, {hidden.size} hidden"
        " nodes"
    )


def _spread(n: int) -> np.ndarray:
    """float`[n]`: heights from top to bottom, centred."""
    return np.array([0.5]) if n == 1 else np.linspace(0.98, 0.02, n)


def _input_place(source: int, side: int) -> tuple[float, float]:
    if source == side * side:
        return BIAS
    row, column = divmod(int(source), side)
    return (column + 0.5) / side, HIGH - (HIGH - LOW) * (row + 0.5) / side


def _heights(graph: Structure, members: np.ndarray, place: np.ndarray, side: int) -> np.ndarray:
    """The mean height of what each node reads."""
    inputs = graph.sizes.inputs

    def height(source: int) -> float:
        if source <= inputs:
            return _input_place(source, side)[1]
        return float(place[source - inputs - 1, 1])

    read = [graph.source[graph.target == member] for member in members]  # a constant reads nothing
    return np.array([np.mean([height(one) for one in ones]) if len(ones) else 0 for ones in read])


def draw_shared_weights(panel: Any, folder: Path) -> None:
    """Draws test accuracy by the shared weight, a line for each seed, and the chosen weights."""
    summary = {row["seed"]: row for row in rows.read_summary(folder)}
    found = [row for row in rows.read_metrics(folder) if row["phase"] == "shared_weights"]
    lines = {"trained": ("each weight trained", "--"), "ensemble": ("ensemble of six", ":")}
    for i, row in enumerate(found):
        mine, colour = summary[row["seed"]], f"C{i % 10}"
        label = f"seed {row['seed']}" if len(found) > 1 else "one shared weight"
        panel.plot(row["weights"], 100 * np.array(row["test"]), color=colour, lw=1.3, label=label)
        label = "" if i else "the best on validation"
        tuned = mine["tuned_weight"], 100 * mine["tuned_accuracy"]
        panel.plot([tuned[0]], [tuned[1]], "o", color=colour, label=label)
        for field, (name, style) in lines.items():
            value = 100 * mine[f"{field}_accuracy"]
            panel.axhline(value, ls=style, color=colour, lw=1, label="" if i else name)
    panel.set(xlabel="shared weight", ylabel="test accuracy (%)", xlim=(-2, 2), ylim=(0, 100))
    panel.set_xticks([-2, -1, -0.5, 0, 0.5, 1, 2])
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize="small", loc="lower right")


def draw_fronts(panel: Any, folder: Path, seed: int) -> None:
    """Draws accuracy by connections of the graphs that no smaller one beats, over generations."""
    found = [row for row in rows.read_metrics(folder) if row.get("front") and row["seed"] == seed]
    steps = np.array([row["step"] for row in found])
    wanted = np.geomspace(steps[0], steps[-1], FRONTS)
    chosen = sorted({int(np.argmin(np.abs(steps - step))) for step in wanted})
    for at in chosen:
        connections, accuracies = np.array(found[at]["front"]).T
        panel.step(connections, 100 * accuracies, where="post", color="C0", lw=1.5)
        last = at == chosen[-1]
        text = f"generation {steps[at]:,}" if last else f" {steps[at]:,}"
        side = "right" if last else "left"
        x, y = float(connections[-1]), float(100 * accuracies[-1])
        panel.text(x, y + 1.5, text, fontsize="small", va="bottom", ha=side)
    panel.set(xlabel="connections", ylabel="accuracy, mean of six weights (%)", ylim=(0, 100))
    panel.set_xlim(left=0.9 * min(found[at]["front"][0][0] for at in chosen))
    panel.grid(alpha=0.3)
