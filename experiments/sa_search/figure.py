"""The figures of an annealing search: of a walk over masks, and of one whose weights train."""

from pathlib import Path
from typing import Any

from experiments.harness import rows
from experiments.harness.canvas import logarithmic, save, subplots
from experiments.harness.records import read_spec
from experiments.sa_search.idle import COLD
from jaxtickets.recipes.search_energies import ENERGIES

MEASURES = {"cross_entropy": "cross-entropy (nats)", "error_rate": "error rate"}
FEW = 30
"""The points of lines with at most this many points are marked."""


def energy_words(spec: dict[str, Any]) -> str:
    """The energy of a search and its unit, for an axis label."""
    measure = MEASURES[spec["measure"]]
    return ENERGIES[spec["energy"]].label.format(**spec | {"measure": measure})


def draw_search(folder: Path) -> Path:
    """Draws energy, best energy, validation score, temperature, swap size and acceptance by step.

    Each thin line is a chain, and its colour shows the density. The acceptance is a mean over the
    steps since the previous point; the other values are those of the point's own step.
    """
    spec = read_spec(folder)
    metrics = [row for row in rows.read_metrics(folder) if row["phase"] == "search"]
    chains: dict[tuple, list[dict[str, Any]]] = {}
    for row in metrics:
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
            # swaps within a layer have that layer's size, so the sizes form no curve
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
    subject = f"{spec['model']} on {spec['dataset']}"
    fig.suptitle(
        f"Search over masks: {subject}, {len(chains)} chains (thin lines) of "
        f"{spec['seeds']} seeds, a point every {spec['chunk']} steps"
    )
    return save(fig, folder, "search")


def draw_annealed_training(folder: Path) -> Path:
    """Draws loss, density, drops and growth by round, of a search whose weights train.

    Each thin line is a chain, and its colour shows the density.
    """
    spec = read_spec(folder)
    metrics = [
        row
        for row in rows.read_metrics(folder)
        if row["phase"].startswith("search") and "chain" in row
    ]
    chains: dict[tuple, list[dict[str, Any]]] = {}
    for row in metrics:
        chains.setdefault((row["density"], row["seed"], row["chain"]), []).append(row)
    densities = sorted({density for density, _, _ in chains}, reverse=True)
    panels = (
        ("energy", "training loss of the round (nats)", True),
        ("validation", "validation loss (nats)", True),
        ("size", "weights that are dropped", True),
        ("hamming", "weights that differ from the first mask", False),
    )
    fig, axes = subplots(2, 2, (9, 6.5))
    for panel, (field, label, powers) in zip(axes.flat, panels, strict=True):
        for (density, _, _), chain in chains.items():
            values = [max(row[field], 0) for row in chain]
            steps = [row["step"] for row in chain]
            colour = f"C{densities.index(density)}"
            panel.plot(steps, values, ".-", color=colour, lw=0.9, ms=4, alpha=0.7)
        panel.set(xlabel="round of the search", ylabel=label, xlim=(0, None))
        panel.locator_params(axis="x", integer=True, nbins=6)
        if powers:
            logarithmic(panel)
    for i, density in enumerate(densities):
        axes.flat[0].plot([], [], color=f"C{i}", label=f"density {density:g}")
    axes.flat[0].legend(frameon=False)
    fig.suptitle(
        f"Annealing while the weights train: {spec['model']} on {spec['dataset']}, {len(chains)} "
        f"chains (thin lines) of {spec['seeds']} seeds"
    )
    return save(fig, folder, "search")
