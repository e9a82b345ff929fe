"""Metrics as TensorBoard's scalars, for runs that ask for them by `--tensorboard`.

`tensorboard --logdir=FOLDER` shows them. Each run of a phase is a curve of its own:

    tensorboard/PHASE/method=ticket,density=0.1,seed=0/events.out.tfevents.metrics

beside the `metrics.jsonl` whose rows these files repeat. A row becomes one event: its numbers are
scalars named by their columns, at its `step`. The fields before `step` name the run. Rows without a
step are left out. The files are written anew wherever rows are dropped, so a resumed run has no
event twice; the events' times are then those of the resumption.
"""

import importlib.util
import shutil
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxtickets.io.errors import UserError
from jaxtickets.io.files import naming

FOLDER, FILE = "tensorboard", "events.out.tfevents.metrics"
STAMP = ("phase", "chunk", "seconds")
"""The fields of a row that name no run, besides `FACTS`."""
FACTS = ("forward_passes", "search_seconds", "search_cost", "search_loss", "search_validation_loss")
"""What a search's ticket brings along, in the rows of its training."""

_followed: set[Path] = set()
"""The folders of the runs whose metrics are repeated as events, parts of a run included."""


def check(asked: bool) -> None:
    """Raises UserError if event files are asked for and can't be written."""
    if asked and importlib.util.find_spec("tensorboardX") is None:
        raise UserError("--tensorboard: needs tensorboardX: pip install 'tensorboardX>=2.6,<3'")


def follow(folder: Path) -> None:
    """From now on the metrics that are written in a run's folder are written as events, too."""
    _followed.add(folder)


def append(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as events, if the run in `folder` is followed.

    Args:
      folder: where their `metrics.jsonl` is.
      rows: rows of numbers, words and lists; of these the numbers are written.

    Raises:
      OSError: a file can't be written.
    """
    if not _followed.intersection((folder, *folder.parents)):
        return
    found: dict[Path, list[bytes]] = {}
    for row in rows:
        if "step" in row:
            found.setdefault(folder / FOLDER / place_of(row), []).append(_event(row))
    for place, events in found.items():
        place.mkdir(parents=True, exist_ok=True)
        path = place / FILE
        first = [] if path.exists() else [_version()]
        with naming(path), path.open("ab") as file:
            file.write(b"".join(map(_framed, first + events)))


def rewrite(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the events by those of the rows that are left, if the run is followed."""
    if _followed.intersection((folder, *folder.parents)):
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        append(folder, rows)


def drop_parts(folder: Path) -> None:
    """Removes all events below a folder, if its run is followed: those of parts of a shared run.

    The run's own events then repeat theirs, and each curve would be shown twice.
    """
    if _followed.intersection((folder, *folder.parents)):
        for events in list(folder.rglob(FOLDER)):
            shutil.rmtree(events, ignore_errors=True)


def place_of(row: Mapping[str, Any]) -> str:
    """Phase and name of the run that a row belongs to, as the path of a folder."""
    names = list(row)[: list(row).index("step")]
    fields = [name for name in names if name not in (*STAMP, *FACTS) and row[name] is not None]
    run = ",".join(f"{name}={row[name]}" for name in fields)
    return "/".join(part.replace("/", "-") for part in (row["phase"], run) if part)


def _event(row: Mapping[str, Any]) -> bytes:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    measured = list(row)[list(row).index("step") + 1 :]
    numbers = {name: row[name] for name in measured if type(row[name]) in (int, float)}
    values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
    summary = Summary(value=values)
    return Event(wall_time=time.time(), step=row["step"], summary=summary).SerializeToString()


def _version() -> bytes:
    """The event that every file begins with."""
    from tensorboardX.proto.event_pb2 import Event

    return Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()


def _framed(event: bytes) -> bytes:
    """A record of TFRecord's format: length, its checksum, the bytes, their checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(event))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
    return length + sums[0] + event + sums[1]
