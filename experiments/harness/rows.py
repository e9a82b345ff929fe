"""The rows that a run writes into its folder: metrics while it runs, a summary at the end.

`metrics.jsonl` grows by one JSON object a line; `nan` and `inf` are strings in it. Each row holds
its `phase` and its `step`, so that a resumed run can drop the rows that it will write again.
At the end `metrics.csv` holds the rows that have a step, in one table: of all runs and phases.
`summary.csv` is written at once, with a row for each run or method. A word that looks like a number
(such as a digest of digits only) is written as quoted JSON.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness import event_files
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, finite_or_not, naming, plain, write_atomically

METRICS, OBSERVATIONS, SUMMARY = "metrics.jsonl", "metrics.csv", "summary.csv"

_QUOTED = re.compile(r'"([^"\\]|\\.)*"')
"""A word in the quotes that `_cell` gives it."""

Row = dict[str, Any]


def append_metrics(folder: Path, *rows: Mapping[str, Any]) -> None:
    """Appends rows to `metrics.jsonl` and flushes them to the operating system.

    With `--tensorboard` they become events, too, see `event_files`.

    Raises:
      TypeError: a value is neither a number, a word, an array nor a container of them.
      OSError: the rows can't be written. The file is left without any of them.
    """
    plainly = [plain(row) for row in rows]
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in plainly]
    path = folder / METRICS
    size = path.stat().st_size if path.exists() else 0
    try:
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
    except OSError:
        if path.is_file():
            os.truncate(path, size)
        raise
    event_files.append(folder, map(finite_or_not, plainly))


def read_metrics(folder: Path) -> list[Row]:
    """The rows of `metrics.jsonl`, without an incomplete last line; empty if there is no file.

    Raises:
      UserError: a line other than the last is damaged.
    """
    return [row for _, row in _metrics(folder)]


def keep_metrics(folder: Path, keep: Callable[[Row], bool]) -> None:
    """Drops the rows for which `keep` is False and an incomplete last line, in one atomic write.

    A resumed run drops the rows of the steps after its checkpoint.

    Raises:
      UserError: a line other than the last is damaged.
    """
    path = folder / METRICS
    if path.exists():
        kept = [(text, row) for text, row in _metrics(folder) if keep(row)]
        content = "".join(text + "\n" for text, _ in kept)
        if len(content.encode()) < path.stat().st_size:  # else there is nothing to drop
            write_atomically(path, content)
            event_files.rewrite(folder, (row for _, row in kept))


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
            raise UserError(f"{path}, line {number}: not a metrics row: it has no phase")
        yield text, row


def parts(folder: Path) -> list[Path]:
    """The folders of a run that hold metrics: its own, and those of its parts.

    Folders of claims, see `shared_parts`, are left out: at its end the run's own metrics hold
    theirs, and until then they belong to processes that may be writing.
    """
    found = (path.parent for path in folder.rglob(METRICS))
    return sorted(one for one in found if not one.with_name(f"{one.name}.claim").exists())


def write_observations(folder: Path) -> int:
    """Writes `metrics.csv` from the metrics of a run and its parts; returns its number of rows.

    A row is one observation: one run of a phase at one step. Its columns are those of all phases,
    and cells are empty where a phase has no such column. `part` is the folder of a part's metrics.
    Rows without a step, such as those that a resumed run needs, aren't observations. Without any
    observation no file is written.
    """
    found = []
    for part in parts(folder):
        name = {} if part == folder else {"part": part.relative_to(folder).as_posix()}
        found += [{**name, **row} for row in read_metrics(part) if "step" in row]
    if found:
        part_column = ["part"] if any("part" in row for row in found) else []
        write_csv(folder / OBSERVATIONS, found, *part_column, "phase", "step")
    return len(found)


def write_summary(folder: Path, rows: Sequence[Mapping[str, Any]], *leading: str) -> Path:
    """Writes `summary.csv` and returns its path.

    Args:
      folder: the run's folder.
      rows: a mapping for each row. None and missing fields become empty cells.
      leading: the first columns. The others follow in order of first appearance.
    """
    return write_csv(folder / SUMMARY, rows, *leading)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *leading: str) -> Path:
    """Writes a table to `path` in the format of `write_summary`, and returns the path."""
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
    """The rows of a table, with numbers and bools parsed and None for empty cells.

    Raises:
      UserError: the file can't be read.
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
