"""A digest of the code that decides the numbers of a training, without comments and docstrings."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

import jaxtickets

TRAINING = (
    *("data", "dynamic/base.py", "dynamic/static.py", "keys.py", "losses.py"),
    *("masks.py", "nets", "optimizer_states.py", "optimizers.py", "penalties.py", "roles.py"),
    *("runs.py", "shape_checks.py", "training.py", "types.py", "weight_average.py"),
)
"""The library's files and folders that a dense training uses."""


def training_code() -> str:
    """A digest of the code in `TRAINING`: 64 hexadecimal digits."""
    root = Path(str(jaxtickets.__file__)).parent
    places = [root / name for name in TRAINING]
    files = [f for place in places for f in ([place] if place.is_file() else place.rglob("*.py"))]
    return digest((str(path.relative_to(root)), path.read_text("utf-8")) for path in sorted(files))


def digest(sources: Iterable[tuple[str, str]]) -> str:
    """A digest of named Python sources that ignores their comments and docstrings."""
    seen = hashlib.sha256()
    for name, text in sources:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [one for one in body if not _is_words(one)]  # type: ignore[attr-defined]
        seen.update(f"{name}\n{ast.dump(tree)}\n".encode())
    return seen.hexdigest()


def _is_words(statement: ast.stmt) -> bool:
    """Whether a statement is only a string: a docstring, or the comment below a name."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
