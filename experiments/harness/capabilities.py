"""Everything that can be chosen by name, on one page that the code's own tables write.

    python -m experiments.harness.capabilities

prints the page in Markdown, with links to the source; the documentation's build (`.docs/build.py`)
writes it with links to its own pages. An entry's line is the first of the docstring of its module,
if the table takes one entry from it, and else of its function.
"""

import ast
import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from experiments.harness.main import run_main
from experiments.harness.pages import ROOT
from jaxtickets import allocation, data, gates, nets, penalties, schedules
from jaxtickets.compress import clustering, entropy_coding, fusion, position_coding, sparse
from jaxtickets.compress.surgeon import SURGEONS
from jaxtickets.compress.weight_sharing import QUANTISERS
from jaxtickets.criteria import CRITERIA, VARIANTS, initial_final
from jaxtickets.criteria.units import UNIT_CRITERIA
from jaxtickets.data.sources import STREAMED, Source
from jaxtickets.dynamic.methods import INNERS, METHODS
from jaxtickets.recipes import (
    baseline_masks,
    mask_actions,
    search_proposals,
    search_schedules,
    strong_tickets,
    structured,
    ticket_controls,
)
from jaxtickets.search import acceptance, energies, interacting_chains


class Entry(NamedTuple):
    """What can be chosen by a name.

    Attributes:
      name: the name.
      summary: one line.
      module: the module that it is in; empty: of a data set or an experiment, which have pages.
      member: the function or class in it; empty: the module as a whole.
      page: the page that has more of it, from the root of the checkout; empty: the module's.
    """

    name: str
    summary: str
    module: str = ""
    member: str = ""
    page: str = ""


class Family(NamedTuple):
    """A table of the code.

    Attributes:
      title: a heading.
      table: where it is, as one imports it.
      entries: its entries, in its order.
    """

    title: str
    table: str
    entries: tuple[Entry, ...]


def first_line(text: str | None) -> str:
    """The first line of a docstring; empty without one."""
    return (text or "").strip().partition("\n")[0]


class Behind(NamedTuple):
    """What is behind an entry.

    Attributes:
      function: the function or class.
      settings: what a `partial` sets of it, and which facts of its record are true.
    """

    function: Any
    settings: tuple[str, ...] = ()


def _behind(name: str, value: Any) -> Behind:
    if isinstance(value, partial):
        function, more = _behind(name, value.func)
        return Behind(function, (*more, *(f"{k}={_word(v)}" for k, v in value.keywords.items())))
    if isinstance(value, tuple):  # a record: its first function with a docstring, or its first
        callables = [field for field in value if callable(field)]
        documented = (each for each in callables if each.__doc__)
        function, more = _behind(name, next(documented, callables[0]))
        fields = getattr(value, "_fields", ())
        return Behind(
            function, (*more, *(k for k, v in zip(fields, value, strict=True) if v is True))
        )
    if "<" in value.__qualname__:  # an inner function: that of the entry's name, if there is one
        named = getattr(importlib.import_module(value.__module__), name, value)
        return Behind(named if inspect.isfunction(named) else value)
    return Behind(value)


def _is_public(qualified: str) -> bool:
    return not any(part.startswith(("_", "<")) for part in qualified.split("."))


def _word(value: Any) -> str:
    return f"`{getattr(value, '__name__', repr(value))}`"


def entries(
    table: Mapping[str, Any], by_module: bool = False, facts: Mapping[str, str] | None = None
) -> tuple[Entry, ...]:
    """The entries of a table whose values are functions, classes, or records of functions.

    Args:
      table: name -> value.
      by_module: whether an entry is a file: the line is then that of its module, if the table takes
        no other function from there.
      facts: name -> a line in the place of the docstring's.
    """
    behind = {name: _behind(name, value) for name, value in table.items() if value is not None}
    functions = [each.function for each in behind.values()]
    in_module = Counter(function.__module__ for function in set(functions))

    def entry(name: str) -> Entry:
        if name not in behind:
            return Entry(name, "Nothing.")
        function, settings = behind[name]
        module, member = function.__module__, function.__qualname__
        own = "" if "<" in member else first_line(function.__doc__)
        of_module = first_line(importlib.import_module(module).__doc__)
        line = of_module if not own or (by_module and in_module[module] == 1) else own
        line = (facts or {}).get(name, line)
        if settings and functions.count(function) > 1:
            line += f" ({', '.join(settings)})"
        return Entry(name, line, module, member if _is_public(member) else "")

    return tuple(entry(name) for name in table)


def on_the_plane() -> dict[str, str]:
    """Name -> the equation of a criterion on the plane of first and last weights."""
    equations = {name: f"`{each.equation}`" for name, each in initial_final.FUNCTIONS.items()}
    same = {
        name
        + initial_final.SAME_SIGN: f"{equation}; weights whose sign training changed come last."
        for name, equation in equations.items()
    }
    words = "with first weights `w_i` and trained ones `w_f`"
    return {name: f"{equation}, {words}." for name, equation in equations.items()} | same


def data_sets(sources: Mapping[str, Source]) -> tuple[Entry, ...]:
    """The data sets, with their sizes in the place of a docstring."""
    return tuple(
        Entry(
            name,
            f"{'x'.join(map(str, source.shape))}, {source.classes} classes; {source.train:,} "
            f"training, {source.validation:,} validation and {source.test:,} test images.",
            "jaxtickets.data.sources",
        )
        for name, source in sources.items()
    )


def constructors(module: ModuleType, result: type) -> dict[str, Callable[..., Any]]:
    """The public functions of a module that return a `result`, by name."""
    members = inspect.getmembers(module, inspect.isfunction)
    own = {name: f for name, f in members if f.__module__ == module.__name__ and name[0] != "_"}
    return {
        name: function
        for name, function in own.items()
        if inspect.signature(function).return_annotation is result
    }


def modules(package: str = "jaxtickets") -> Iterator[str]:
    """The public modules of a package and of those inside it, the package first."""
    yield package
    found = importlib.import_module(package)
    for inner in pkgutil.iter_modules(getattr(found, "__path__", ())):
        if not inner.name.startswith("_"):
            yield from modules(f"{package}.{inner.name}")


def module_entries(package: str) -> tuple[Entry, ...]:
    """The modules of a package, but for the package itself."""
    return tuple(
        Entry(name.removeprefix(f"{package}."), _line_of(name), name)
        for name in modules(package)
        if name != package
    )


def _line_of(module: str) -> str:
    return first_line(importlib.import_module(module).__doc__)


def experiments() -> tuple[Entry, ...]:
    """The experiments, each with its question; reads their source alone."""
    found = []
    for command in sorted((ROOT / "experiments").glob("*/__main__.py")):
        name = command.parent.name
        text = ast.get_docstring(ast.parse(command.read_text(encoding="utf-8")))
        found.append(Entry(name, first_line(text), page=f"experiments/{name}/README.md"))
    return tuple(found)


def families() -> tuple[Family, ...]:
    """All tables, in the order of the page."""
    return (
        Family("Experiments", "experiments", experiments()),
        Family("Nets", "jaxtickets.nets.NETS", entries(nets.NETS, by_module=True)),
        Family("Data sets in memory", "jaxtickets.data.NAMES", data_sets(data.sources.SOURCES)),
        Family("Data sets in a stream", "jaxtickets.data.sources.STREAMED", data_sets(STREAMED)),
        Family("Variants of a data set", "jaxtickets.data.VARIANTS", entries(data.VARIANTS)),
        Family(
            "Criteria of weights",
            "jaxtickets.criteria.CRITERIA",
            entries(CRITERIA, by_module=True, facts=on_the_plane()),
        ),
        Family("Variants of criteria", "jaxtickets.criteria.VARIANTS", entries(VARIANTS)),
        Family(
            "Criteria of units",
            "jaxtickets.criteria.units.UNIT_CRITERIA",
            entries(UNIT_CRITERIA, by_module=True),
        ),
        Family(
            "Allocations of counts to layers",
            "jaxtickets.allocation.ALLOCATIONS",
            entries(allocation.ALLOCATIONS),
        ),
        Family(
            "Masks that move in training",
            "jaxtickets.dynamic.methods.METHODS",
            entries(METHODS, by_module=True),
        ),
        Family(
            "Inner optimisers that sparsify",
            "jaxtickets.dynamic.methods.INNERS",
            entries(INNERS, by_module=True),
        ),
        Family(
            "Gates over fixed weights",
            "jaxtickets.gates.GATES",
            entries(gates.GATES, by_module=True),
        ),
        Family(
            "Gates that train with their weights",
            "jaxtickets.gates.JOINT_GATES",
            entries(gates.JOINT_GATES, by_module=True),
        ),
        Family("Penalties", "jaxtickets.penalties.PENALTIES", entries(penalties.PENALTIES)),
        Family(
            "Surgeons", "jaxtickets.compress.surgeon.SURGEONS", entries(SURGEONS, by_module=True)
        ),
        Family(
            "Energies of a search",
            "jaxtickets.search.energies",
            entries(constructors(energies, energies.Energy)),
        ),
        Family("Measures", "jaxtickets.search.energies.MEASURES", entries(energies.MEASURES)),
        Family(
            "Proposals of a search",
            "jaxtickets.recipes.search_proposals.PROPOSALS",
            entries(search_proposals.PROPOSALS),
        ),
        Family(
            "Acceptance rules",
            "jaxtickets.search.acceptance.ACCEPTANCES",
            entries(acceptance.ACCEPTANCES),
        ),
        Family(
            "Interactions of chains",
            "jaxtickets.search.interacting_chains.INTERACTIONS",
            entries(interacting_chains.INTERACTIONS),
        ),
        Family(
            "Temperatures of a search",
            "jaxtickets.recipes.search_schedules.TEMPERATURES",
            entries(search_schedules.TEMPERATURES),
        ),
        Family(
            "Sizes of a search's moves",
            "jaxtickets.recipes.search_schedules.SIZES",
            entries(search_schedules.SIZES),
        ),
        Family(
            "Baseline masks",
            "jaxtickets.recipes.baseline_masks.BASELINES",
            entries(baseline_masks.BASELINES),
        ),
        Family(
            "Controls of a ticket",
            "jaxtickets.recipes.ticket_controls.CONTROLS",
            entries(ticket_controls.CONTROLS),
        ),
        Family(
            "Values of kept weights",
            "jaxtickets.recipes.mask_actions.ONES",
            entries(mask_actions.ONES),
        ),
        Family(
            "Values of pruned weights",
            "jaxtickets.recipes.mask_actions.ZEROS",
            entries(mask_actions.ZEROS),
        ),
        Family(
            "Constructions of strong tickets",
            "jaxtickets.recipes.strong_tickets.CONSTRUCTIONS",
            entries(strong_tickets.CONSTRUCTIONS),
        ),
        Family(
            "Trainings of a smaller net",
            "jaxtickets.recipes.structured.AFTERS",
            entries(structured.AFTERS),
        ),
        Family("Neurons that are fused", "jaxtickets.compress.fusion.WHICH", entries(fusion.WHICH)),
        Family("Ways to fuse neurons", "jaxtickets.compress.fusion.HOW", entries(fusion.HOW)),
        Family(
            "Forms of sparse products", "jaxtickets.compress.sparse.FORMS", entries(sparse.FORMS)
        ),
        Family("Quantisers", "jaxtickets.compress.weight_sharing.QUANTISERS", entries(QUANTISERS)),
        Family(
            "Starts of a clustering",
            "jaxtickets.compress.clustering.STARTS",
            entries(clustering.STARTS),
        ),
        Family(
            "Codes of symbols",
            "jaxtickets.compress.entropy_coding.SYMBOL_CODERS",
            entries(entropy_coding.SYMBOL_CODERS),
        ),
        Family(
            "Codes of positions",
            "jaxtickets.compress.position_coding.POSITION_CODERS",
            entries(position_coding.POSITION_CODERS),
        ),
        Family("Schedules", "jaxtickets.schedules.SCHEDULES", entries(schedules.SCHEDULES)),
        Family("Searches", "jaxtickets.search", module_entries("jaxtickets.search")),
        Family("Whole procedures", "jaxtickets.recipes", module_entries("jaxtickets.recipes")),
        Family("Compression", "jaxtickets.compress", module_entries("jaxtickets.compress")),
        Family("Analysis", "jaxtickets.analysis", module_entries("jaxtickets.analysis")),
        Family("Files", "jaxtickets.io", module_entries("jaxtickets.io")),
    )


Link = Callable[[Entry], str]
"""`link(entry) -> Markdown`: the entry's name as a link to what more there is of it."""


def to_source(entry: Entry) -> str:
    """A link to the entry's page or source file, from the root of the checkout."""
    place = entry.page
    if entry.module:
        file = importlib.import_module(entry.module).__file__ or ""
        place = file.removeprefix(f"{ROOT}/")
    return f"[`{entry.name}`]({place})" if place else f"`{entry.name}`"


def page(link: Link = to_source) -> str:
    """The page in Markdown: a section with a table for each family."""
    parts = [
        "# Capabilities",
        "Everything that can be chosen by name. The code's own tables write this page: the line of "
        "an entry is the first of its docstring, and its name leads to the rest.",
    ]
    for family in families():
        rows = [f"| {link(entry)} | {_cell(entry.summary)} |" for entry in family.entries]
        table = "\n".join(["| name | what it is |", "|---|---|", *rows])
        parts.append(f"## {family.title}\n\n`{family.table}`, {len(rows)}:\n\n{table}")
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main() -> None:
    """Prints the page."""
    print(page(), end="")


if __name__ == "__main__":
    run_main(main)
