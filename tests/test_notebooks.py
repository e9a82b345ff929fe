"""The notebooks run without warnings and draw; text and notebook are the same cells."""

import re

import commands
import pytest

from experiments.harness import notebooks

pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

SOURCES = notebooks.sources()
LEAST_FIGURES = {"sixteen_chains": 4, "tour": 4, "your_own_net": 3}
each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def test_there_are_three_notebooks_and_each_has_its_page_and_badge():
    assert {source.stem for source in SOURCES} == set(LEAST_FIGURES)
    page = (notebooks.HOME / "README.md").read_text(encoding="utf-8")
    for source in SOURCES:
        assert f"({source.stem}.ipynb)" in page
        assert f"/experiments/notebooks/{source.stem}.ipynb)" in page


@each_notebook
def test_text_and_notebook_agree_cell_by_cell(source):
    kept = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    cells = [(cell.cell_type, cell.source) for cell in kept.cells]
    assert cells == [(cell.cell_type, cell.source) for cell in notebooks.read(source).cells]


@each_notebook
def test_a_notebook_needs_the_installed_package_alone(source):
    assert not re.search(r"(from|import) experiments", source.read_text("utf-8"))


@each_notebook
def test_what_is_kept_has_figures_is_small_and_warns_of_nothing(source):
    kept = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert source.with_suffix(".ipynb").stat().st_size < notebooks.MOST_BYTES
    assert notebooks.figures(kept) >= LEAST_FIGURES[source.stem]
    assert notebooks.complaints(kept) == []


@each_notebook
def test_a_notebook_runs_draws_and_warns_of_nothing(source, cache):
    notebook = notebooks.read(source)
    assert notebooks.figures(notebook) == 0
    notebooks.execute(notebook, commands.environment(cache))
    assert notebooks.figures(notebook) >= LEAST_FIGURES[source.stem]
    assert notebooks.complaints(notebook) == []


def test_a_warning_of_a_cell_is_a_complaint():
    cells = [nbformat.v4.new_code_cell("import warnings\nwarnings.warn('look here')\nprint(1)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebooks.execute(notebook)
    (said,) = notebooks.complaints(notebook)
    assert "look here" in said


def test_without_the_package_the_first_cell_says_so_in_one_line():
    (first,) = [cell for cell in notebooks.read(SOURCES[0]).cells if "ADDRESS =" in cell.source]
    # as if nothing could be imported, and pip found nothing at the address
    absent = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    pip = (
        "import subprocess\nsubprocess.run = lambda *_, **__: subprocess.CompletedProcess((), 1)\n"
    )
    cell = nbformat.v4.new_code_cell(absent + pip + first.source)
    cell.metadata["tags"] = ["raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebooks.execute(notebook)
    (error,) = notebooks.outputs(notebook)
    (line,) = error.traceback
    assert line.startswith("jaxtickets can't be installed from git+https://") and "\n" not in line
