"""A run's folder: how it is made, found again for `--resume`, and locked.

    runs/EXPERIMENT/TIME-HASH/   TIME in UTC, HASH of `spec.json`
      spec.json                  the experiment and all settings that decide its numbers
      provenance.json            commit, versions, devices, times: see `provenance`
      metrics.jsonl, metrics.csv, summary.csv   see `rows`
      report.html                see `report`

A process locks its folder. The kernel releases the lock when the process ends. The processes of a
shared run (`shared_parts`) hold the same lock together.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.harness import compilation, event_files, progress, provenance, rows, setup
from experiments.harness.flags import RunSettings
from jaxtickets.io import processes
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import canonical, digest, plain, pretty, remove, write_atomically
from jaxtickets.runs import Axis

SPEC = "spec.json"
_LOCK, _RECORDS_LOCK = ".lock", ".records.lock"

_held: dict[tuple[int, int], tuple[int, Path]] = {}
"""Locks of this process: (device, inode) -> (file descriptor, folder). Closing one unlocks it."""


class Run(NamedTuple):
    """An open run.

    Attributes:
      folder: the run's folder.
      resumed: whether it continues an earlier run.
    """

    folder: Path
    resumed: bool


def spec_hash(spec: Any) -> str:
    """The first ten hexadecimal digits of the SHA-256 of a spec's canonical JSON.

    The order of fields and keys doesn't matter. 1 and 1.0 differ.

    Args:
      spec: a dataclass or a mapping of numbers, words and containers of them.
    """
    return digest(spec)[:10]


def open_run(
    experiment: str,
    spec: Any,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    root: str | os.PathLike[str] = "runs",
    shared: bool = False,
) -> Run:
    """Makes or resumes a run's folder, locks it, and records the spec and the provenance.

    Args:
      experiment: the experiment's name, which is part of the hash.
      spec: a frozen dataclass (or mapping) of all settings that decide the numbers.
      out: the folder; None: a new one in `root/experiment`.
      resume: whether to continue the run in `out`, or the newest run with the same spec.
      root: the folder of runs without `out`.
      shared: whether other processes may use the folder at the same time. A run of the same spec
        that is there already is then joined, as if resumed.

    Raises:
      UserError: the folder holds another spec or other files, or the same spec without `resume` or
        `shared`; another process has locked it; it can't be written; or there is nothing to resume.
    """
    record = {"experiment": experiment, **plain(spec)}
    home = Path(root) / experiment
    folder, made = home, False
    try:
        if out is not None:
            folder = Path(out)
        else:
            folder = _newest(home, record) if resume else _make(home, record)
        resume = resume or (shared and (folder / SPEC).exists())
        _check(folder, record, resume)
        made = (out is None and not resume) or not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        _lock(folder, shared)
        with _alone_with_records(folder):
            resume = resume or (shared and (folder / SPEC).exists())
            _check(folder, record, resume)  # another process may have used it since
            _start(folder, record)
    except OSError as error:
        if made:
            _unlock(folder)
            remove(folder)
        raise UserError(f"can't use {error.filename or folder}: {error.strerror}") from error
    return Run(folder, resume)


def open_run_of_flags(
    experiment: str, place: RunSettings, parts: Sequence[Any], axis: Axis, shared: bool = False
) -> Run:
    """Opens the run that the flags describe, and prints its devices and its folder.

    Args:
      experiment: the experiment's name.
      place: where and how the run is executed.
      parts: dataclasses whose fields together form the spec.
      axis: how runs are batched.
      shared: see `open_run`.
    """
    spec = {name: value for part in parts for name, value in dataclasses.asdict(part).items()}
    out, resume = place.out or None, place.resume
    found = processes.told(lambda: open_run(experiment, spec, out, resume, shared=shared))
    run = found._replace(folder=processes.copied(found.folder))
    if place.tensorboard and processes.first():
        event_files.follow(run.folder)
        for part in rows.parts(run.folder):
            event_files.rewrite(part, rows.read_metrics(part))
    print(f"{setup.describe_devices()}, {axis.mode} in blocks of {axis.width}: {run.folder}")
    compilation.watch_elsewhere(progress.between_phases())
    return run


def finish_run(folder: Path) -> None:
    """Records the run's end time."""
    with _alone_with_records(folder):
        provenance.finish(folder)


def read_spec(folder: Path) -> dict[str, Any]:
    """The content of `spec.json`: `experiment` and the spec's fields, in the types of JSON.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = Path(folder) / SPEC
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"no run in {folder}: it has no {SPEC}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no fields")
    return found


def current() -> Path | None:
    """The folder that this process opened last; None if it has opened none."""
    return list(_held.values())[-1][1] if _held else None


# --- making and finding --------------------------------------------------------------------------


def _make(home: Path, record: Mapping[str, Any]) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    while True:
        folder = home / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{spec_hash(record)}"
        try:
            folder.mkdir()
        except FileExistsError:
            time.sleep(0.1)  # another run started in the same second: take the next second
            continue
        return folder


def _newest(home: Path, record: Mapping[str, Any]) -> Path:
    folders = sorted(path.parent for path in home.glob(f"*/{SPEC}"))
    same = [path for path in folders if path.name.endswith(f"-{spec_hash(record)}")]
    if same:
        return same[-1]
    if not folders:
        raise UserError(f"nothing to resume: there is no run in {home}")
    changed = _changes(read_spec(folders[-1]), record)
    raise UserError(
        f"nothing to resume: no run in {home} has this spec; {folders[-1].name} differs: {changed}"
    )


def _check(folder: Path, record: Mapping[str, Any], resume: bool) -> None:
    if (folder / SPEC).exists():
        changed = _changes(read_spec(folder), record)
        if changed and resume:
            raise UserError(f"can't resume {folder}: the spec has changed: {changed}")
        if changed:
            raise UserError(f"{folder} holds another run ({changed}): choose another --out")
        if not resume:
            raise UserError(f"{folder} is in use: --resume continues it, or choose another --out")
    elif resume:
        raise UserError(f"nothing to resume in {folder}")
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(f"{folder} holds files that are no run: choose another --out")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The fields that differ, such as `steps: 100 -> 200`; empty if none does."""
    names = dict.fromkeys([*old, *new])
    texts = {
        name: [canonical(spec[name]) if name in spec else "(none)" for spec in (old, new)]
        for name in names
    }
    return ", ".join(f"{name}: {a} -> {b}" for name, (a, b) in texts.items() if a != b)


def _start(folder: Path, record: Mapping[str, Any]) -> None:
    rows.keep_metrics(folder, lambda row: True)  # drops a line that a kill left incomplete
    if not (folder / SPEC).exists():
        write_atomically(folder / SPEC, pretty(record))
    provenance.start(folder)


def _unlock(folder: Path) -> None:
    """Releases this process's lock of a folder."""
    for inode, (file, held) in list(_held.items()):
        if held == folder:
            os.close(file)
            del _held[inode]


@contextlib.contextmanager
def _alone_with_records(folder: Path) -> Iterator[None]:
    """Waits until no other process of a shared run reads and writes the folder's records."""
    with (folder / _RECORDS_LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(folder: Path, shared: bool) -> None:
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    status = os.fstat(file)
    inode = (status.st_dev, status.st_ino)
    if inode in _held:  # this process resumes its own run
        os.close(file)
        return
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise UserError(f"{folder} is in use by another process") from error
    _held[inode] = (file, folder)
