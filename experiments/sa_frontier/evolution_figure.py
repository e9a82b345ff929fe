"""A figure of sparse training: weights left and validation accuracy during the training."""

from pathlib import Path
from typing import Any

from experiments.harness import rows
from experiments.harness.canvas import logarithmic, save, subplots
from experiments.harness.records import read_spec


def draw_evolution(folder: Path, phase: str) -> Path:
    """Draws the scheduled weights left and each chain's validation accuracy against the step.

    Each density has a colour. On the right, each chain of each seed and budget has a line.

    Args:
      folder: the run's folder.
      phase: the prefix of the phases' names.
    """
    spec = read_spec(folder)
    chains: dict[tuple, list[dict[str, Any]]] = {}
    schedules: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows.read_metrics(folder):
        if row["phase"].startswith(phase):
            name = row["density"], row["phase"], row.get("seed"), row.get("chain")
            (chains if "chain" in row else schedules).setdefault(name, []).append(row)
    densities = sorted({name[0] for name in chains}, reverse=True)
    fig, axes = subplots(1, 2, (10, 4))
    left, right = axes.flat

    def draw(
        panel: Any, groups: dict[tuple, list[dict[str, Any]]], field: str, **style: Any
    ) -> None:
        for (density, *_), members in groups.items():
            panel.plot(
                [row["step"] for row in members],
                [100 * row[field] for row in members],
                color=f"C{densities.index(density)}",
                **style,
            )

    draw(left, schedules, "left", drawstyle="steps-post", lw=1.2)
    draw(right, chains, "accuracy", marker=".", ms=4, lw=0.9, alpha=0.7)
    left.set(ylabel="weights left (%)")
    right.set(ylabel="validation accuracy of the sparse net (%)")
    for panel in (left, right):
        panel.set(xlabel="training step of the search")
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    logarithmic(left)
    for i, density in enumerate(densities):
        right.plot([], [], color=f"C{i}", label=f"to {100 * density:g} % of the weights")
    right.legend(frameon=False, loc="lower right")
    many = len(chains)
    chains_drawn = f"{many} chain{'s, one line each' if many > 1 else ''}"
    fig.suptitle(f"Sparse training: {spec['model']} on {spec['dataset']}, {chains_drawn}")
    return save(fig, folder, "evolution")
