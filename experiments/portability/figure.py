"""A figure of the differences between JAX and elsewhere."""

from pathlib import Path

import numpy as np

from experiments.harness import rows
from experiments.harness.canvas import legend_beside, save, subplots
from experiments.portability.page import DIFFERENCES

LEAST = 1e-9
"""Where differences of zero are drawn."""
LABELS = {
    "onnx_dense": "onnxruntime, dense",
    "onnx_masked": "onnxruntime, masked",
    "onnx_shrunk": "onnxruntime, shrunk",
    "program": "jax.export, masked",
}


def draw_differences(folder: Path) -> Path:
    """Draws the largest difference of logits, relative to the largest logit, of each net."""
    summary = rows.read_summary(folder)
    fig, axes = subplots(1, 1, (8, 1.6 + 0.24 * len(summary)))
    panel = axes[0, 0]
    places = np.arange(len(summary))
    for name, marker in zip(DIFFERENCES, "osD|", strict=True):
        found = [(row.get(name), place) for row, place in zip(summary, places, strict=True)]
        known = [(max(value, LEAST), place) for value, place in found if value is not None]
        if known:
            values, heights = zip(*known, strict=True)
            panel.plot(values, heights, marker, ms=6, alpha=0.8, label=LABELS[name])
    epsilon = float(np.finfo(np.float32).eps)
    panel.axvline(epsilon, color="0.3", lw=1, ls=":", label="float32's epsilon")
    panel.set_yticks(places, [row["model"] for row in summary], fontsize="small")
    panel.invert_yaxis()
    ticks = [LEAST, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4]
    panel.set(xscale="log", xlim=(LEAST / 2, 2e-4))
    panel.set_xticks(ticks, ["0", *(f"{tick:.0e}" for tick in ticks[1:])])
    panel.minorticks_off()
    panel.set_xlabel("largest difference of logits / largest logit")
    panel.grid(alpha=0.3)
    legend_beside(panel)
    fig.suptitle("The same net in JAX and elsewhere: random weights, one draw")
    return save(fig, folder, "differences")
