"""The examples in docstrings run, and show what they say.

An example may use the names of its module, and `jax`, `jnp`, `np` and `optax`.
"""

import ast
import doctest
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

ROOT = Path(__file__).parent.parent
NAMES = {"jax": jax, "jnp": jnp, "np": np, "optax": optax}
PROMPT = ">>>"


def examples(path: Path) -> list[tuple[str, int, str]]:
    """`(name, line, docstring)` of each docstring in a file that has an example."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            if PROMPT in text:
                name = getattr(node, "name", path.stem)
                found.append((name, node.body[0].lineno, text))
    return found


WITH_EXAMPLES = [
    str(path.relative_to(ROOT))
    for path in sorted((ROOT / "jaxtickets").rglob("*.py"))
    if examples(path)
]


NOT_HERE = {
    "jaxtickets/data/prepare.py:prepare",  # downloads, and needs TensorFlow
    "jaxtickets/data/records.py:read",  # reads a folder that TFDS has prepared
}


def test_every_public_function_has_an_example():
    without = set()
    for path in (ROOT / "jaxtickets").rglob("*.py"):
        file, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            if public and PROMPT not in (ast.get_docstring(node) or ""):
                without.add(f"{file}:{node.name}")
    assert without == NOT_HERE


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_examples_show_what_they_say(file):
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said = []
    for name, line, text in examples(ROOT / file):
        names = {**NAMES, **vars(module)}
        test = doctest.DocTestParser().get_doctest(text, names, name, file, line)
        runner.run(test, out=said.append)
    assert not said, "".join(said)
