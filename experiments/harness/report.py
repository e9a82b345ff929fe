"""`report.html`: a run on one page, in one file that needs nothing else, no network either.

It has the experiment's question, the command, the figures (that of the experiment's page first),
the table that the run prints, and the rows of its records, which a click on a column's head sorts.
Spec and provenance are folded away. It's written at the end of a run, and again at the end of a run
that is resumed.
"""

import base64
import csv
import html
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, TypeVar

from experiments.harness import pages, provenance, records, rows
from jaxtickets.io import processes
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import write_atomically

T = TypeVar("T")

REPORT = "report.html"
MOST_ROWS = 2000
"""Of a record, on the page."""
TEMPLATE = Path(__file__).with_name(REPORT)


def finish(folder: Path) -> None:
    """Writes a finished run's `metrics.csv` and `report.html`, and prints where the page is.

    Before it comes the run's best figure. The run's records are complete without all of these. So
    what can't be written is one line on stderr.
    """
    _tried(rows.OBSERVATIONS, rows.write_observations, folder)
    for name, make in (("figure", best_figure), ("report", write)):
        if (path := _tried(name, make, folder)) is not None:
            print(f"{name}: {path}")


def _tried(name: str, make: Callable[[Path], T], folder: Path) -> T | None:
    try:
        return make(folder)
    except (OSError, UserError, LookupError, TypeError, ValueError) as error:
        words = " ".join(f"no {name} of {folder}: {type(error).__name__}: {error}".split())
        print(words, file=processes.stderr(), flush=True)
        return None


def best_figure(folder: Path) -> Path | None:
    """The figure that the experiment's page shows; if it isn't drawn another one, or None."""
    name = pages.page_of(records.read_spec(folder)["experiment"]).FIGURE
    drawn = sorted((folder / "figures").glob("*.png"))
    return next((path for path in drawn if path.stem == name), drawn[0] if drawn else None)


def write(folder: Path) -> Path:
    """Writes `report.html` into the folder of a run that has ended, and returns its path.

    Raises:
      UserError: the run has not ended, or lacks a record that its table needs.
      OSError: a file can't be read or written.
    """
    path = folder / REPORT
    write_atomically(path, text_of(folder))
    return path


def text_of(folder: Path) -> str:
    """The page of a run that has ended, see `write`."""
    spec = records.read_spec(folder)
    experiment = spec["experiment"]
    page = pages.page_of(experiment)
    origin = pages.origin(folder, spec)
    found = pages.records_of(page, folder.joinpath)
    best = best_figure(folder)
    others = [path for path in sorted((folder / "figures").glob("*.png")) if path != best]
    kept = list(dict.fromkeys((*found, rows.SUMMARY)))
    question = _question(experiment)
    said = {
        "title": f"{experiment}: {question}",
        "experiment": f"{experiment} · {folder.resolve().name}",
        "question": question,
        "origin": f"{pages.origin_words(origin)}.",
        "table": pages.table_of(page, found),
    }
    parts = {
        "command": " ".join(map(_argument, origin["command"].split())),
        "first_figure": _figure(best) if best else "",
        "other_figures": _others(others),
        "records": "\n".join(_record(folder / name) for name in kept if (folder / name).exists()),
        "spec": _facts(spec),
        "provenance": "\n".join(map(_facts, provenance.read(folder))),
        "metrics": _metrics(folder),
    }
    escaped = {name: html.escape(text) for name, text in said.items()}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(escaped | parts)


def _question(experiment: str) -> str:
    """The first line of the experiment's README, without its mark; else the experiment's name."""
    try:
        readme = (pages.ROOT / "experiments" / experiment / "README.md").read_text(encoding="utf-8")
    except OSError:
        return experiment
    return readme.partition("\n")[0].lstrip("# ") or experiment


def _argument(word: str) -> str:
    return f"<span>{html.escape(word)}</span>"  # a line breaks between arguments


def _figure(path: Path) -> str:
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # where PNG's header has them
    name = html.escape(path.name)
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = f'<img src="{source}" alt="{name}" width="{width}" height="{height}">'
    return f'<figure><div class="view">{image}</div><figcaption>{name}</figcaption></figure>'


def _others(paths: Sequence[Path]) -> str:
    figures = "\n".join(map(_figure, paths))
    return f'<h2>More figures</h2>\n<div class="others">\n{figures}\n</div>' if paths else ""


def _record(path: Path) -> str:
    """A record as a table that can be sorted."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *body = list(csv.reader(file)) or [[]]
    columns = "".join(
        f'<th><button type="button">{html.escape(name)}</button></th>' for name in head
    )
    lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in body[:MOST_ROWS])
    shown = f"the first {MOST_ROWS:,} of {len(body):,}" if len(body) > MOST_ROWS else len(body)
    name = html.escape(path.name)
    return f"""<h2>{name}</h2>
<p class="soft">{shown} rows; a click on a column's head sorts by it.</p>
<div class="scroll" tabindex="0">
<table class="rows"><thead><tr>{columns}</tr></thead>
<tbody>
{lines}
</tbody></table>
</div>"""


def _cell(text: str) -> str:
    """A cell; that of a word is marked, as numbers and empty cells stand at the right."""
    try:
        float(text or "0")
    except ValueError:
        return f'<td class="w">{html.escape(text)}</td>'
    return f"<td>{html.escape(text)}</td>"


def _facts(values: Mapping[str, Any]) -> str:
    lines = "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(_words(value))}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="facts">\n{lines}\n</table>'


def _words(value: Any) -> str:
    """A value of JSON in words: lists with commas, mappings as names with their values."""
    if isinstance(value, Mapping):
        return _words([f"{name} {_words(item)}" for name, item in value.items()])
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(_words, value)) or "(none)"
    return "(none)" if value in (None, "") else str(value)


def _metrics(folder: Path) -> str:
    """The files that hold the course of the run, if there is one."""
    counts = [len(rows.read_metrics(part)) for part in rows.parts(folder)]
    if not counts:
        return ""
    where = f"{len(counts)} files" if len(counts) > 1 else "the file"
    table = f", and <code>{rows.OBSERVATIONS}</code> as one table"
    table *= (folder / rows.OBSERVATIONS).exists()
    return (
        f'<p class="soft">Its course: {where} <code>{rows.METRICS}</code> ({sum(counts):,} rows)'
        f"{table}.</p>"
    )
