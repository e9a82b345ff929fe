"""A figure of trained accuracy against the orthogonality of masked layers."""

from pathlib import Path

from experiments.harness import rows
from experiments.harness.canvas import densities, legend_beside, save, subplots
from experiments.harness.method_figures import label, ordered
from experiments.harness.records import read_spec


def draw_orthogonality(folder: Path) -> Path:
    """Draws trained accuracy against the orthogonality score of each mask, a panel per density."""
    spec, summary = read_spec(folder), rows.read_summary(folder)
    left = densities(summary)
    fig, axes = subplots(1, len(left), (5 * len(left) + 2.5, 4.6))
    for panel, density in zip(axes.flat, left, strict=True):
        for i, method in enumerate(ordered(summary)):
            for check, marker in ((None, "o"), ("repaired", "x")):
                wanted = 1.0 if method == "dense" else density
                mine = [
                    row
                    for row in summary
                    if (row["method"], row["check"], row["density"]) == (method, check, wanted)
                ]
                if mine:
                    panel.plot(
                        [row["orthogonality"] for row in mine],
                        [100 * row["trained_accuracy"] for row in mine],
                        marker,
                        color="0.3" if method == "dense" else f"C{i % 10}",
                        label=label(method, check or "").replace("\n", " "),
                        ms=6,
                        alpha=0.8,
                    )
        panel.set(xlabel="orthogonality score of the masked layers (0: orthogonal)")
        panel.set(ylabel="test accuracy, trained (%)", title=f"density {density:g}")
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.3)
    legend_beside(axes.flat[-1])
    fig.suptitle(
        f"{spec['model']} on {spec['dataset']}: a point per seed; crosses: after "
        f"{spec['repair_steps']} steps of repair"
    )
    return save(fig, folder, "orthogonality")
