"""The annealing search."""

from pathlib import Path
from typing import Any

from experiments.harness import rows
from experiments.harness.canvas import logarithmic, save, subplots
from experiments.harness.records import read_spec
from experiments.sa_search.idle import COLD
from jaxtickets.recipes.search_energies import ENERGIES

MEASURES = {"cross_entropy": "cross-entropy (nats)", "error_rate": "error rate"}
FEW = 30
"""So many points of a line are marked."""


def energy_words(spec: dict[str, Any]) -> str:
    """What a search lowered, and its unit."""
    measure = MEASURES[spec["measure"]]
    return ENERGIES[spec["energy"]].label.format(**spec | {"measure": measure})


def draw_search(folder: Path) -> Path:
    """Energy, best energy and validation score of every chain; temperature, swap size, acceptance.

    A colour is a density; thin lines are chains. Acceptance is a mean over the steps between two
    points, all else is as it was at the last of them.
    """
    spec = read_spec(folder)
    seen = [row for row in rows.read_metrics(folder) if row["phase"] == "search"]
    chains: dict[tuple, list[dict[str, Any]]] = {}
    for row in seen:
        chains.setdefault((row["density"], row["seed"], row["chain"]), []).append(row)
    densities = sorted({density for density, _, _ in chains}, reverse=True)
    fig, axes = subplots(2, 3, (12, 6.5))
    cold = spec["accept"] in COLD["accept"]
    panels = (
        ("energy", f"energy: {energy_words(spec)}"),
        ("best_energy", "lowest energy so far"),
        ("validation", "chosen mask's energy\non the validation images"),
        ("temperature", "temperature" + (f"\n(not used: accept={spec['accept']})" if cold else "")),
        ("size", "swap size (ones switched off)"),
        ("accepted", "accepted swaps (share)"),
    )
    for panel, (field, label) in zip(axes.flat, panels, strict=True):
        for (density, _, _), chain in chains.items():
            colour = f"C{densities.index(density)}"
            steps = [row["step"] for row in chain]
            # a swap within one layer has that layer's size: points, since no curve joins them
            style: dict[str, Any] = {"lw": 0 if field == "size" else 0.9, "ms": 4}
            if field == "size" or len(steps) <= FEW:
                style["marker"] = "."
            panel.plot(steps, [row[field] for row in chain], color=colour, alpha=0.7, **style)
        panel.set(xlabel="step of the search", ylabel=label, xlim=(0, 1.03 * spec["steps"]))
        panel.locator_params(axis="x", integer=True, nbins=6)
        if field in ("temperature", "size"):
            logarithmic(panel)
    axes.flat[-1].set_ylim(-0.03, 1.03)
    for i, density in enumerate(densities):
        axes.flat[0].plot([], [], color=f"C{i}", label=f"density {density:g}")
    axes.flat[0].legend(frameon=False)
    what = f"{spec['model']} on {spec['dataset']}"
    fig.suptitle(
        f"Search over masks: {what}, {len(chains)} chains (thin lines) of {spec['seeds']} seeds, "
        f"a point every {spec['chunk']} steps"
    )
    return save(fig, folder, "search")
