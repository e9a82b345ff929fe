"""The annealing search."""

from pathlib import Path
from typing import Any

from experiments.harness import rows
from experiments.harness.canvas import save, subplots, words
from experiments.harness.records import read_spec

ENERGIES = {
    "gradient_flow": "minus the gradient's norm",
    "orthogonality": "distance from orthogonal",
}
"""What an energy is called that isn't a measure of the net's outputs."""


def draw_search(folder: Path) -> Path:
    """Energy, best energy and validation score of every chain; temperature, swap size, acceptance.

    A colour is a density; thin lines are chains.
    """
    spec = read_spec(folder)
    seen = [row for row in rows.read_metrics(folder) if row["phase"] == "search"]
    chains: dict[tuple, list[dict[str, Any]]] = {}
    for row in seen:
        chains.setdefault((row["density"], row["seed"], row["chain"]), []).append(row)
    densities = sorted({density for density, _, _ in chains}, reverse=True)
    fig, axes = subplots(2, 3, (12, 6.5))
    panels = (
        ("energy", f"energy ({ENERGIES.get(spec['energy']) or words(spec['measure'])})"),
        ("best_energy", "best energy so far"),
        ("validation", "validation score of the chosen mask"),
        ("temperature", "temperature"),
        ("size", "swap size k (weights or units)"),
        ("accepted", "accepted swaps (share)"),
    )
    for panel, (field, label) in zip(axes.flat, panels, strict=True):
        for (density, _, _), chain in chains.items():
            colour = f"C{densities.index(density)}"
            steps = [row["step"] for row in chain]
            # a swap within one layer has that layer's size: points, since no curve joins them
            style = {"marker": ".", "ls": "", "ms": 3} if field == "size" else {"lw": 0.9}
            panel.plot(steps, [row[field] for row in chain], color=colour, alpha=0.7, **style)
        panel.set(xlabel="step", ylabel=label)
        if field in ("temperature", "size"):
            panel.set_yscale("log")
    for i, density in enumerate(densities):
        axes.flat[0].plot([], [], color=f"C{i}", label=f"density {density:g}")
    axes.flat[0].legend(frameon=False)
    what = f"{spec['model']} on {spec['dataset']}"
    fig.suptitle(
        f"Search over masks: {what}, {len(chains)} chains, values every {spec['chunk']} steps"
    )
    return save(fig, folder, "search")
