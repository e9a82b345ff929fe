"""The table and figure of the page: differences by net."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row

RECORDS = ("summary.csv",)
FIGURE = "differences"
DIFFERENCES = {
    "onnx_dense": "ONNX dense",
    "onnx_masked": "masked",
    "onnx_shrunk": "shrunk",
    "program": "jax.export",
}
"""Column of the summary -> head: differences of logits."""
CHANGED = {"state_dict": "state dict", "portable": "safetensors"}
"""Column of the summary -> head: numbers that changed on the way there and back."""
SIZES = {"portable_bytes": "MiB", "onnx_bytes": "ONNX MiB", "shrunk_bytes": "shrunk MiB"}
"""Column of the summary -> head: bytes."""


def table(done: Sequence[Row]) -> str:
    """Differences of logits by net, relative to the largest; changed numbers; sizes of files."""
    lines = [["net", "parameters", *DIFFERENCES.values(), *CHANGED.values(), *SIZES.values()]]
    for row in done:
        cells = [row["model"], f"{row['parameters']:,}"]
        cells += [_cell(row.get(name), "{:.1e}") for name in DIFFERENCES]
        cells += [_cell(row.get(name), "{:,}") for name in CHANGED]
        sizes = [row.get(name) for name in SIZES]
        cells += [_cell(size and size / 2**20, "{:.2f}") for size in sizes]
        lines.append(cells)
    return tables.aligned(lines)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
