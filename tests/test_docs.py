"""The documentation's sources: all pages are there, links lead somewhere, docstrings are plain.

Sphinx itself is not run: a build takes minutes.
"""

import importlib.util
import re
import sys

import pytest

from experiments.harness import capabilities, notebooks, pages

FOLDER = pages.ROOT / ".docs"


def module(name, monkeypatch):
    """A module of the documentation's folder, which is no package."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location(f"docs_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_all_pages_are_put_together_and_their_links_lead_to_files(tmp_path, monkeypatch):
    module("build", monkeypatch).write(tmp_path)
    for page in [*pages.pages(), *(n.with_suffix(".ipynb") for n in notebooks.sources())]:
        assert (tmp_path / page.relative_to(pages.ROOT)).is_file()
    for name in capabilities.modules():
        assert f"automodule:: {name}\n" in (tmp_path / "api" / f"{name}.md").read_text()
    for page in tmp_path.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for place in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
            assert (page.parent / place).exists(), (page, place)
        for block in re.findall(r"```{toctree}\n(.*?)```", text, re.DOTALL):
            for name in (line for line in block.splitlines() if line and line[0] != ":"):
                found = [page.parent / f"{name}{suffix}" for suffix in (".md", ".ipynb")]
                assert any(path.exists() for path in found), (page, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the `mask` of", "the ``mask`` of"),
        ("float`[n]`, of", "float\\ ``[n]``\\ , of"),
        ("by `moves`\n(the plan)", "by ``moves``\n(the plan)"),
        ("an *x*, |y| and z_ but not a_b", "an \\*x\\*, \\|y\\| and z\\_ but not a_b"),
        ("`a\n  b`", "``a b``"),
    ],
)
def test_code_is_literal_and_marks_are_escaped(text, expected, monkeypatch):
    assert module("docstrings", monkeypatch).spans(text) == expected


def test_indented_paragraphs_of_a_modules_docstring_are_code(monkeypatch):
    code = module("docstrings", monkeypatch).indented_code
    lines = ["Words:", "", "    x = 1", "", "    y = 2", "", "More."]
    expected = ["Words:", "", "::", "", "    x = 1", "", "    y = 2", "", "More."]
    assert code(lines, everywhere=True) == expected
    assert code(lines, everywhere=False) == lines


def test_a_variables_docstring_keeps_its_colons_and_has_no_type(monkeypatch):
    docstrings = module("docstrings", monkeypatch)
    lines = ["What makes it: of these, `a`."]
    docstrings.as_rst(None, "data", "TABLE", None, None, lines)
    assert ":" not in lines[0]
    docstrings.with_colons(None, "data", "TABLE", None, None, lines)
    assert lines == ["What makes it: of these, ``a``\\ ."]
