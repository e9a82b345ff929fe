"""Rows that a run writes into its folder: metrics as it goes, a summary at its end.

`metrics.jsonl` is appended, one JSON object a line, with `nan` and `inf` as strings; each row
carries its `phase` and its `step`, so that a resumed run can drop what it will write again.
`summary.csv` is written whole, a row a run or method; a word that would be read as a number (a
digest of digits alone, say) stands in it as JSON, in quotes of its own.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, finite_or_not, naming, plain, write_atomically

METRICS, SUMMARY = "metrics.jsonl", "summary.csv"

_QUOTED = re.compile(r'"([^"\\]|\\.)*"')
"""A word as `_cell` quotes it."""

Row = dict[str, Any]


def append_metrics(folder: Path, *rows: Mapping[str, Any]) -> None:
    """Adds rows to `metrics.jsonl`, flushed to the operating system.

    Raises:
      TypeError: a value is neither a number, a word, an array nor a container of them.
      OSError: they can't be written; then none of them is.
    """
    lines = [json.dumps(plain(row), allow_nan=False) + "\n" for row in rows]
    path = folder / METRICS
    size = path.stat().st_size if path.exists() else 0
    try:
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
    except OSError:
        if path.is_file():
            os.truncate(path, size)
        raise


def read_metrics(folder: Path) -> list[Row]:
    """The rows of `metrics.jsonl`, none if there is no file; an incomplete last line is left out.

    Raises:
      UserError: another line is damaged.
    """
    return [row for _, row in _metrics(folder)]


def keep_metrics(folder: Path, keep: Callable[[Row], bool]) -> None:
    """Drops the rows for which `keep` is False, and an incomplete last line; atomic.

    A resumed run drops the rows of steps after its checkpoint.

    Raises:
      UserError: a line that isn't the last is damaged.
    """
    path = folder / METRICS
    if path.exists():
        kept = "".join(text + "\n" for text, row in _metrics(folder) if keep(row))
        if len(kept.encode()) < path.stat().st_size:  # else there is nothing to drop
            write_atomically(path, kept)


def _metrics(folder: Path) -> Iterator[tuple[str, Row]]:
    path = folder / METRICS
    if not path.exists():
        return
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, text in enumerate(lines, start=1):
        try:
            row = finite_or_not(json.loads(text))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not a JSON object: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("phase"), str):
            raise UserError(f"{path}, line {number}: not a row of metrics, which has a phase")
        yield text, row


def write_summary(folder: Path, rows: Sequence[Mapping[str, Any]], *leading: str) -> Path:
    """Writes `summary.csv` and returns its path.

    Args:
      folder: the run's folder.
      rows: a mapping a row; None and what a row lacks become empty cells.
      leading: the first columns; the others follow in order of first appearance.
    """
    return write_csv(folder / SUMMARY, rows, *leading)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *leading: str) -> Path:
    """Writes a table as `write_summary` does, to a path, which it returns."""
    text = io.StringIO()
    columns = list(dict.fromkeys([*leading, *(name for row in rows for name in row)]))
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue())
    return path


def read_summary(folder: Path) -> list[Row]:
    """The rows of `summary.csv`, see `read_csv`."""
    return read_csv(folder / SUMMARY)


def read_csv(path: Path) -> list[Row]:
    """A table's rows; cells that look like numbers or bools are, empty ones are None.

    Raises:
      UserError: there is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: _value(cell) for name, cell in row.items()} for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"no {path.stem} in {path.parent}: {error.strerror}") from error


def _cell(value: Any) -> Any:
    is_word = isinstance(value, str)
    value = plain(value)
    if isinstance(value, list | dict) or (is_word and value and _value(value) != value):
        return canonical(value)
    return value


def _value(cell: str) -> Any:
    words = {"": None, "True": True, "False": False}
    if cell in words:
        return words[cell]
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return json.loads(cell) if _QUOTED.fullmatch(cell) else cell
