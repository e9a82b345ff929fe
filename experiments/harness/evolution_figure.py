"""Masks that evolve in a training: how many weights are left, and what the net can do."""

from pathlib import Path
from typing import Any

from experiments.harness import rows
from experiments.harness.canvas import logarithmic, save, subplots
from experiments.harness.records import read_spec


def draw_evolution(folder: Path, phase: str) -> Path:
    """Weights left and validation accuracy of every chain against the step.

    A colour is a density; a line a chain, those of all seeds and budgets.

    Args:
      folder: the run's.
      phase: what the names of the phases begin with.
    """
    spec = read_spec(folder)
    chains: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows.read_metrics(folder):
        if row["phase"].startswith(phase):
            name = row["density"], row["phase"], row["seed"], row["chain"]
            chains.setdefault(name, []).append(row)
    densities = sorted({name[0] for name in chains}, reverse=True)
    fig, axes = subplots(1, 2, (10, 4))
    panels = (
        ("left", "weights left (%)"),
        ("accuracy", "validation accuracy of the sparse net (%)"),
    )
    for panel, (field, label) in zip(axes.flat, panels, strict=True):
        for (density, *_), chain in chains.items():
            seen = [row for row in chain if field in row]
            panel.plot(
                [row["step"] for row in seen],
                [100 * row[field] for row in seen],
                color=f"C{densities.index(density)}",
                lw=0.9,
                alpha=0.7,
            )
        panel.set(xlabel="training step of the search", ylabel=label)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    logarithmic(axes.flat[0])
    for i, density in enumerate(densities):
        axes.flat[1].plot([], [], color=f"C{i}", label=f"to {100 * density:g} % of the weights")
    axes.flat[1].legend(frameon=False, loc="lower right")
    many = len(chains)
    said = f"{many} chain{'s, a line each' if many > 1 else ''}"
    fig.suptitle(f"Masks that evolve: {spec['model']} on {spec['dataset']}, {said}")
    return save(fig, folder, "evolution")
