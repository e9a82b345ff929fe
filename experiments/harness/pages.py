"""Result pages: the tables between their markers are written from runs' records, none by hand.

    python -m experiments.harness.pages --run=runs/sa_search/FOLDER --label=lenet5

keeps in `experiments/sa_search/results/` what the table needs of a run that has ended
(`lenet5.csv`), where the run comes from (`lenet5.json`) and its figure (`lenet5.png`), and writes
command, table and origin between the two lines

    <!-- table: sa_search/lenet5 -->
    <!-- end -->

of the README and of every result page that has them. Without `--run` all tables are written again
from what is kept.

An experiment's `page.py`, or `default_page` where it has none, says what its page shows: `RECORDS`,
files of a run's folder, the first of them with a row a seed; `table`, which makes the text of their
rows that the run prints too; and `FIGURE`, the name of one of the run's figures. `OPTIONAL` has
further records, of which a run may lack some: `table` gets no rows of those. `--figures=where`
keeps other figures beside it (`lenet5-where.png`).
"""

import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from os.path import relpath
from pathlib import Path
from typing import Any

from absl import flags

from experiments.harness import default_page, provenance, rows
from experiments.harness.canvas import few_colours
from experiments.harness.flags import RunSettings, StoreSettings
from experiments.harness.main import run_main
from experiments.harness.records import read_spec
from experiments.harness.rows import Row
from experiments.harness.shared_parts import ShareSettings
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import pretty, write_atomically

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- table: (\w+)/([\w.-]+) -->\n.*?<!-- end -->", re.DOTALL)
MOST_BYTES = 100_000
"""Of any file that is kept."""


def page_of(experiment: str) -> Any:
    """The module with an experiment's `RECORDS`, `table` and `FIGURE`.

    Raises:
      UserError: there is no such experiment.
    """
    own = f"experiments.{experiment}.page"
    try:
        return importlib.import_module(own) if importlib.util.find_spec(own) else default_page
    except ModuleNotFoundError as error:
        raise UserError(f"{experiment} has no page: {error}") from error


def records_of(page: Any, place: Callable[[str], Path]) -> dict[str, list[Row]]:
    """The rows of a page's records, by name; those of an optional one may be missing.

    Args:
      page: see `page_of`.
      place: record -> where it is.

    Raises:
      UserError: another record can't be read.
    """
    optional = [name for name in getattr(page, "OPTIONAL", ()) if place(name).exists()]
    return {name: rows.read_csv(place(name)) for name in (*page.RECORDS, *optional)}


def table_of(page: Any, records: Mapping[str, Sequence[Row]]) -> str:
    """A page's table of the rows of its records, see `records_of`."""
    names = (*page.RECORDS, *getattr(page, "OPTIONAL", ()))
    return page.table(*(records.get(name, ()) for name in names))


def keep(folder: Path, label: str, root: Path = ROOT, figures: Sequence[str] = ()) -> str:
    """Keeps what a page needs of a run's folder; returns the experiment's name.

    Args:
      folder: of a run that has ended.
      label: the table's name among those of its experiment.
      root: of the checkout.
      figures: the names of the run's figures that are kept beside the page's own.

    Raises:
      UserError: the run has not ended, or lacks a record; or a file would be too large.
    """
    spec = read_spec(folder)
    experiment = spec["experiment"]
    page = page_of(experiment)
    records = needed(page, records_of(page, folder.joinpath))
    source = origin(folder, spec)
    home = root / "experiments" / experiment / "results"
    home.mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        _small(rows.write_csv(_record(home, label, name), record))
    write_atomically(home / f"{label}.json", pretty(source))
    drawn = folder / "figures"
    draw(drawn / f"{page.FIGURE}.png", home / f"{label}.png")
    for name in figures:
        draw(drawn / f"{name}.png", home / f"{label}-{name}.png")
    return experiment


def needed(page: Any, records: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """The records without the columns that the page's table doesn't read; the seed's stays."""
    text, kept = table_of(page, records), dict(records)
    for name, record in records.items():
        for column in dict.fromkeys(key for row in record for key in row if key != "seed"):
            less = [{k: v for k, v in row.items() if k != column} for row in kept[name]]
            if _same(page, fewer := {**kept, name: less}, text):
                kept = fewer
    return kept


def _same(page: Any, records: Mapping[str, Sequence[Row]], text: str) -> bool:
    try:
        return table_of(page, records) == text
    except (LookupError, TypeError, ValueError):  # what is missing is read
        return False


def origin(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Where a run comes from: command, number of seeds, time, devices, commit and versions.

    Raises:
      UserError: it has not ended.
    """
    sessions = provenance.read(folder)
    ended = [session for session in sessions if session["ended"]]
    if not ended:
        raise UserError(f"{folder}: the run has not ended, --resume goes on with it")
    times = [[session[name] for name in ("started", "ended")] for session in sessions]
    whole = all(end for _, end in times)  # a process that was killed has left no end
    last = ended[-1]
    return {
        "command": command(last["command"]),
        "seeds": spec.get("seeds", 1),
        "seconds": _seconds(times) if whole else None,
        "date": last["ended"][:10],
        **{name: last[name] for name in ("devices", "cpu", "commit")},
        "versions": {name: last["versions"][name] for name in ("python", "jax")},
    }


def _seconds(times: Sequence[Sequence[str]]) -> float:
    """The time in which one session or more was running; those of a shared run overlap.

    Args:
      times: start and end of each session.
    """
    spent, until = 0.0, datetime.min.replace(tzinfo=UTC)
    for start, end in sorted([datetime.fromisoformat(time) for time in pair] for pair in times):
        spent += max(0.0, (end - max(start, until)).total_seconds())
        until = max(until, end)
    return spent


PLACES = [
    field
    for kind in (RunSettings, StoreSettings, ShareSettings)
    for field in dataclasses.fields(kind)
]
SWITCHES = {f"{no}{field.name}" for field in PLACES if field.type is bool for no in ("", "no")}
VALUES = {field.name for field in PLACES} - SWITCHES


def command(words: str) -> str:
    """A run's command without the flags that don't decide its numbers.

    Args:
      words: as `provenance` has it, with the interpreter's path.
    """
    _, module, *arguments = shlex.split(words[words.index(" -m ") :])
    kept, rest = ["python", "-m", module], iter(arguments)
    for word in rest:
        name, is_set, _ = word.lstrip("-").partition("=")
        if name in VALUES and not is_set:
            next(rest, None)  # its value
        elif name not in SWITCHES | VALUES:
            kept.append(word)
    return shlex.join(kept)


def draw(source: Path, target: Path) -> None:
    """Copies a figure with 256 colours of its own, shrunk only if it is too large to be kept.

    Raises:
      UserError: there is none.
    """
    from PIL import Image

    try:
        picture = Image.open(source).convert("RGB")
    except OSError as error:
        raise UserError(f"no figure {source}: {error}") from error
    share, smaller = 1.0, picture
    while True:
        few_colours(smaller).save(target, optimize=True)
        if target.stat().st_size < MOST_BYTES:
            return
        share *= 0.9
        size = round(share * picture.width), round(share * picture.height)
        smaller = picture.resize(size, Image.Resampling.HAMMING)  # it doesn't overshoot at edges


def _small(path: Path) -> None:
    size = path.stat().st_size
    if size >= MOST_BYTES:
        path.unlink()
        raise UserError(f"{path}: {size} bytes, at most {MOST_BYTES} are kept of a run")


def _record(home: Path, label: str, name: str) -> Path:
    """Where a record is kept: `LABEL.csv` for the summary, `LABEL-NAME.csv` for others."""
    return home / (f"{label}.csv" if name == rows.SUMMARY else f"{label}-{name}")


# --- pages ----------------------------------------------------------------------------------------


def block(experiment: str, label: str, page: Path, root: Path = ROOT) -> str:
    """What stands between the markers of a page: command, table, and where it comes from.

    Raises:
      UserError: no such run was kept.
    """
    home = root / "experiments" / experiment / "results"
    shown = page_of(experiment)
    text = table_of(shown, records_of(shown, lambda name: _record(home, label, name)))
    record = json.loads((home / f"{label}.json").read_text(encoding="utf-8"))
    table = "\n".join(line.rstrip() for line in text.splitlines())
    where = Path(relpath(_record(home, label, shown.RECORDS[0]), page.parent)).as_posix()
    return f"\n    {record['command']}\n\n```text\n{table}\n```\n\n{_origin_line(record, where)}\n"


def _origin_line(record: dict[str, Any], where: str) -> str:
    return f"{origin_words(record)}; [rows]({where})."


def origin_words(record: dict[str, Any]) -> str:
    """What `origin` has found, but for the command, in one line."""
    n, devices = record["seeds"], record["devices"]
    if devices["kind"] == "cpu":
        machine = f"{devices['count']} CPU device{'s' * (devices['count'] > 1)} ({record['cpu']})"
    else:
        machine = f"{devices['count']} x {devices['kind']}"
    took = "not timed" if record["seconds"] is None else _time(record["seconds"])
    head, _, dirty = (record["commit"] or "unknown").partition("-")
    commit = head[:10] + (" with changes" if dirty else "")
    seeds = f"n = {n}" + ", mean ± sample standard deviation over seeds" * (n > 1)
    return (
        f"{seeds}; {machine}, {took}; commit {commit}"
        f", jax {record['versions']['jax']}, {record['date']}"
    )


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def write(page: Path, root: Path = ROOT) -> str:
    """The page's text with every table written again from what is kept; others stay as they are."""

    def again(match: re.Match[str]) -> str:
        experiment, label = match.groups()
        if not (root / "experiments" / experiment / "results" / f"{label}.json").exists():
            return match.group()
        inside = block(experiment, label, page, root)
        return f"<!-- table: {experiment}/{label} -->\n{inside}\n<!-- end -->"

    return BLOCK.sub(again, page.read_text(encoding="utf-8"))


def pages(root: Path = ROOT) -> list[Path]:
    """The README, the experiments' overview if there is one, and all result pages."""
    places = ("README.md", "experiments/README.md", "experiments/*/README.md")
    return [page for place in places for page in sorted(root.glob(place))]


def main() -> None:
    """Keeps a run if one is given, and writes the tables of all pages."""
    folder, label = flags.FLAGS.run, flags.FLAGS.label
    if folder:
        if not re.fullmatch(r"[\w.-]+", label):
            raise UserError(
                f"--label={label}: letters, digits, dots and dashes that name the table"
            )
        experiment = keep(Path(folder), label, figures=flags.FLAGS.figures)
        marker = f"<!-- table: {experiment}/{label} -->"
        if not any(marker in page.read_text(encoding="utf-8") for page in pages()):
            print(f"put {marker} and <!-- end --> into a page, and run this without --run")
    for page in pages():
        text = write(page)
        if text != page.read_text(encoding="utf-8"):
            write_atomically(page, text)
            print(f"written: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    flags.DEFINE_string("run", "", "the folder of a run to keep; empty: none")
    flags.DEFINE_string("label", "", "the name of its table among those of its experiment")
    flags.DEFINE_list("figures", [], "further figures of the run to keep, by name")
    run_main(main)
