"""Tables as text: mean and spread over seeds, and paired differences with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Row = dict[str, Any]
"""A row of a summary: column -> value. Each row is one method at one density and seed."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
      head: the column's head.
      field: the summary column that it shows.
      scale: the factor that values are multiplied by; 100 shows fractions in %.
      digits: digits after the decimal point.
      always: whether the column is shown even if no row has the field.
    """

    head: str
    field: str
    scale: float = 100
    digits: int = 2
    always: bool = False


def accuracy(when: str, head: str = "") -> Column:
    """The column of the test accuracy `{when}_accuracy`: untrained, trained, cut, ..."""
    return Column(head or f"{when} %", f"{when}_accuracy", always=True)


VALIDATION = Column("validation %", "validation_accuracy")
"""The trained net's accuracy on validation data."""
SEARCH = (
    Column("search cost", "search_cost", 1, 2),
    Column("search loss", "search_loss", 1, 3),
    Column("on validation", "search_validation_loss", 1, 3),
)
"""The cost of finding a mask, in dense trainings; and the loss of the mask that the search found,
on the search's own data and on the validation data."""
ACCURACIES = (accuracy("untrained"), accuracy("trained"), VALIDATION)
"""The accuracies of a mask before and after training."""


def present(columns: Sequence[Column], summary: Sequence[Row]) -> list[Column]:
    """The columns that are always shown, or whose field at least one row has."""
    return [
        column
        for column in columns
        if column.always or any(row.get(column.field) is not None for row in summary)
    ]


def cells(columns: Sequence[Column], members: Sequence[Row]) -> list[str]:
    """Mean and spread over the members in each column; empty if a member lacks the field."""
    found = []
    for column in columns:
        values = [row.get(column.field) for row in members]
        known = [value for value in values if value is not None]
        full = len(known) == len(values)
        found.append(spread(known, column.scale, column.digits) if full else "")
    return found


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Rows of words as aligned text: the first column flush left, the others flush right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def spread(values: Sequence[float], scale: float = 100, digits: int = 2) -> str:
    """`97.31 ± 0.12`: mean and sample standard deviation; only the mean if n = 1.

    Args:
      values: the values.
      scale: the factor that they are multiplied by; 100 shows fractions in %.
      digits: digits after the decimal point.
    """
    mean = f"{scale * np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {scale * np.std(values, ddof=1):.{digits}f}"


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float]:
    """The mean difference over the seeds that both have, and half the width of its 95 % interval.

    The interval is Student's t interval of the paired differences; infinite for a single seed.
    """
    seeds = sorted(set(ours) & set(theirs))
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    n = len(differences)
    if n < 2:
        return float(np.mean(differences)), float("inf")
    # scipy.stats calls it too, but takes five times as long to import
    from scipy.special import stdtrit

    half = stdtrit(n - 1, 0.975) * np.std(differences, ddof=1) / n**0.5
    return float(np.mean(differences)), float(half)


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """`+3.05 ± 0.16`: `paired` differences of accuracies, in points; only the mean if n = 1."""
    mean, half = paired(ours, theirs)
    interval = f" ± {100 * half:.2f}" if np.isfinite(half) else ""
    return f"{100 * mean:+.2f}{interval}"


def difference_range(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """`+3.05 (+2.89 to +3.21)`: what `difference` says, with the ends of the interval."""
    mean, half = paired(ours, theirs)
    low, high = 100 * (mean - half), 100 * (mean + half)
    interval = f" ({low:+.2f} to {high:+.2f})" if np.isfinite(half) else ""
    return f"{100 * mean:+.2f}{interval}"


# --- methods at densities -------------------------------------------------------------------------


def grouped(summary: Sequence[Row]) -> dict[tuple[str, str, float], list[Row]]:
    """(method, check, density) -> rows. The check is empty for the method's own rows."""
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in summary:
        key = row["method"], row.get("check") or "", row["density"]
        groups.setdefault(key, []).append(row)
    return groups


def methods(summary: Sequence[Row], more: Sequence[Column] = ()) -> str:
    """A table with mean ± sample standard deviation over seeds of each method and density.

    Checks of methods, validation accuracies, the results of searches and `more` have columns if any
    row has them. A line below the table names each method and density that has emptied a layer.
    """
    groups = grouped(summary)
    checked = any(check for _, check, _ in groups)
    layers = kept_layers(summary[0])
    there = present((*ACCURACIES, *SEARCH, *more), summary)
    head = ["method", *(["check"] if checked else []), "density", "n"]
    head += [column.head for column in there]
    head += [name.removeprefix("kept/").removesuffix("/kernel") for name in layers]
    lines = [head]
    for (method, check, density), members in groups.items():
        left = [f"{np.mean([row[name] for row in members]):.0f}" for name in layers]
        named = [method, *([check] if checked else []), f"{density:g}"]
        lines.append([*named, str(len(members)), *cells(there, members), *left])
    return "\n".join([aligned(lines), *lost(summary)])


def kept_layers(row: Row) -> list[str]:
    """The columns with the weights kept in each layer of the row's net."""
    return [name for name in row if name.startswith("kept/") and row[name] is not None]


def lost(summary: Sequence[Row]) -> list[str]:
    """A line for each method and density that has emptied a layer."""
    found = []
    for (method, check, density), members in grouped(summary).items():
        empty = [name for name in kept_layers(members[0]) if not all(row[name] for row in members)]
        if empty:
            which = f"{method} ({check})" if check else method
            where = ", ".join(sorted(name.removeprefix("kept/") for name in empty))
            found.append(f"a layer is lost: {which} at {density:g} keeps nothing in {where}")
    return found
