"""Notebooks: runs the text files of `experiments/notebooks/` and writes them with their outputs.

    python -m experiments.harness.notebooks
    python -m experiments.harness.notebooks --only=tour

`NAME.py` is the notebook as text, in jupytext's percent format, and is what people edit. This
command runs it cell by cell and writes `NAME.ipynb`: the same cells with what they printed and
drew. It needs jupytext, nbclient and ipykernel (tests/requirements.txt).
"""

import base64
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from experiments.harness.canvas import few_colours
from experiments.harness.main import run_main
from experiments.harness.pages import ROOT
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import write_atomically

HOME = ROOT / "experiments" / "notebooks"
MOST_BYTES = 200_000
"""Of a notebook that is kept."""
SECONDS = 600
"""The longest time that a cell may take."""


def sources() -> list[Path]:
    """The notebooks as text."""
    return sorted(HOME.glob("*.py"))


def read(source: Path) -> Any:
    """The notebook of a text file, without outputs; always with the same bytes.

    Raises:
      UserError: jupytext is not installed.
    """
    try:
        import jupytext
    except ImportError as error:
        raise UserError(f"{error}: pip install -r tests/requirements.txt") from error
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def execute(notebook: Any, environment: Mapping[str, str] = os.environ) -> None:
    """Runs all cells in a new kernel, and keeps their outputs in the notebook.

    Args:
      notebook: is changed.
      environment: of the kernel, which also finds the packages of this checkout.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    path = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        sockets = {"transport": "ipc", "ip": f"{folder}/kernel"}  # opens no port
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            record_timing=False,
            resources={"metadata": {"path": str(HOME)}},
            config=Config({"KernelManager": sockets}),
        )
        client.execute(env={**environment, "PYTHONPATH": path})


def outputs(notebook: Any) -> list[Any]:
    """The outputs of all cells, in order."""
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def with_few_colours(notebook: Any) -> None:
    """Writes the figures anew with few colours, see `canvas.few_colours`."""
    from PIL import Image

    for output in outputs(notebook):
        if figure := output.get("data", {}).get("image/png"):
            picture = Image.open(io.BytesIO(base64.b64decode(figure))).convert("RGB")
            small = io.BytesIO()
            few_colours(picture).save(small, "png", optimize=True)
            output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()


def figures(notebook: Any) -> int:
    """The number of figures among the outputs."""
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def complaints(notebook: Any) -> list[str]:
    """What the cells wrote to stderr, such as warnings."""
    return [output.text for output in outputs(notebook) if output.get("name") == "stderr"]


def main() -> None:
    """Runs the notebooks and writes those that neither warn nor are too large."""
    import nbformat

    only = flags.FLAGS.only
    chosen = [source for source in sources() if only in ("", source.stem)]
    if not chosen:
        there = ", ".join(source.stem for source in sources())
        raise UserError(f"--only={only}: must be one of {there}")
    for source in chosen:
        notebook = read(source)
        execute(notebook)
        if said := complaints(notebook):
            raise UserError(f"{source.name} wrote to stderr: {said[0]}")
        with_few_colours(notebook)
        text = nbformat.writes(notebook) + "\n"
        if len(text) > MOST_BYTES:
            raise UserError(
                f"{source.stem}.ipynb: {len(text)} bytes, at most {MOST_BYTES} are kept"
            )
        write_atomically(source.with_suffix(".ipynb"), text)
        print(f"written: {source.stem}.ipynb, {figures(notebook)} figures, {len(text):,} bytes")


if __name__ == "__main__":
    flags.DEFINE_string("only", "", "the name of the one notebook to run; empty: all")
    run_main(main)
