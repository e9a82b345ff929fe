"""The structure of the code: who may import whom, and what stands where."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxtickets import gates, nets
from jaxtickets.criteria import CRITERIA
from jaxtickets.criteria.units import UNIT_CRITERIA

ROOT = Path(__file__).parent.parent
ORDER = (
    ("types", "keys", "shape_checks"),
    (
        "masks",
        "allocation",
        "schedules",
        "losses",
        "roles",
        "penalties",
        "optimizers",
        "alrao",
        "optimizer_states",
        "runs",
        "weight_average",
    ),
    ("nets",),
    ("data",),
    ("dynamic",),
    ("training",),
    ("criteria",),
    ("search",),
    ("gates",),
    ("compress",),
    ("analysis",),
    ("recipes",),
    ("io",),
)
"""The library's lines: a module imports from lines above its own, from its own file's line if that
is one of single files, or from its own folder."""
LINE = {name: number for number, line in enumerate(ORDER) for name in line}


def modules(top: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / top).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


LIBRARY, APPLICATIONS = dict(modules("jaxtickets")), dict(modules("experiments"))
KNOWN = LIBRARY | APPLICATIONS


def imports(path: Path) -> set[str]:
    """The project's modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in KNOWN else node.module)
    return {name for name in found if name.partition(".")[0] in ("jaxtickets", "experiments")}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_part_of_the_library_has_its_line():
    assert {room(module) for module in LIBRARY} - {""} == set(LINE)


@pytest.mark.parametrize("module", [name for name in LIBRARY if room(name)])
def test_the_library_imports_from_lines_above_or_its_own_folder(module):
    mine = room(module)
    for other in imports(LIBRARY[module]):
        assert other.startswith("jaxtickets"), f"{module} imports {other}"
        theirs = room(other)
        assert theirs == mine or LINE[theirs] <= LINE[mine], f"{module} imports {other}"


@pytest.mark.parametrize("module", list(APPLICATIONS))
def test_an_experiment_imports_the_library_the_harness_and_itself(module):
    for other in imports(APPLICATIONS[module]):
        allowed = room(other) in (room(module), "harness") or other.startswith("jaxtickets")
        assert allowed, f"{module} imports {other}"


def test_an_experiment_is_a_folder_with_its_command():
    folders = {path.parent.name for path in (ROOT / "experiments").glob("*/__init__.py")}
    commands = {path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py")}
    assert commands == folders - {"harness"}
    loose = {path.name for path in (ROOT / "experiments").glob("*.py")}
    assert loose == {"__init__.py"}


FAMILIES = {
    "jaxtickets.criteria": {*CRITERIA, *UNIT_CRITERIA},
    "jaxtickets.gates": {*gates.GATES},
    "jaxtickets.nets": {*nets.NETS},
}
"""Where a family is, and the names of its members."""
CHANCE = {
    "experiments.harness.searched_tickets",
    "experiments.sparse_execution.page",
    "experiments.sparse_execution.figure",
}
"""Modules whose own masks are called random: none of a criterion."""


OF_STRINGS = ("startswith", "endswith", "removeprefix", "removesuffix")


@functools.cache
def compared(path: Path) -> frozenset[str]:
    """The words that a file compares with, looks for among others, or cuts off a name."""
    parts: list[ast.AST] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare):
            parts += [node.left, *node.comparators]
        elif isinstance(node, ast.match_case):
            parts.append(node.pattern)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in OF_STRINGS:
            parts += node.args
    leaves = (leaf for part in parts for leaf in ast.walk(part) if isinstance(leaf, ast.Constant))
    return frozenset(leaf.value.strip("_") for leaf in leaves if isinstance(leaf.value, str))


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outside_a_family_branches_on_a_members_name(family):
    # what a branch would ask for is a fact on the member's record
    found = {
        (module, word)
        for module, path in KNOWN.items()
        if not f"{module}.".startswith(f"{family}.")
        for word in FAMILIES[family].intersection(compared(path))
        if not (word == "random" and module in CHANCE)
    }
    assert not found


PACKED = {
    ("jaxtickets.runs", "arguments"),  # as many as the caller's function takes
}
"""Tuples that are packed under a name and splatted into a call, in one function."""


def packed(path: Path) -> set[str]:
    """The names of a file's tuples that the function that packs them also splats into a call."""
    found = set()
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        inside = list(ast.walk(function))
        tuples = {
            target.id
            for node in inside
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        found |= tuples & {
            argument.value.id
            for node in inside
            if isinstance(node, ast.Call)
            for argument in node.args
            if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Name)
        }
    return found


def test_arguments_are_not_packed_to_be_splatted():
    found = {(module, name) for module, path in KNOWN.items() for name in packed(path)}
    assert found == PACKED


SLOW = {
    "chex",
    "grain",
    "matplotlib",
    "orbax",
    "pandas",
    "PIL",
    "scipy.special",
    "scipy.stats",
    "tensorboardX",
    "tensorflow_datasets",
}


def test_what_few_commands_need_is_imported_where_it_is_used():
    names = [name for name in APPLICATIONS if name.endswith(".__main__")]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)"
    code += "\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(names) > 10 and not SLOW & set(done.stdout.split())
