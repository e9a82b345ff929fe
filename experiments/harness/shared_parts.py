"""Parts of a run that independent processes share, so that the death of one stops no other.

Every process is started with the same command and the same `--out`, on any machine that sees the
folder. Each claims a part that nobody works on, does it, and writes its result. The processes are
not connected: one that is killed leaves a claim whose time runs out, and another takes its part
over, from the newest checkpoint.

    OUT/parts/grid-03/1.claim    the first claim: its owner touches the file while it is alive
    OUT/parts/grid-03/1/         that owner's records and checkpoints
    OUT/parts/grid-03/2.claim    the second claim, after the first one's time has run out
    OUT/parts/grid-03/done.json  the number of the claim that finished, and the rows

A claim is a file that only one process can make, and the claim with the highest number is valid. A
process that was stopped, lost its part and goes on writes into a folder of its own. Parts are pure
functions of their settings, so that it doesn't matter whose result stands.
"""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.harness.settings import option
from jaxtickets.io import processes
from jaxtickets.io.errors import UserError
from jaxtickets.io.files import finite_or_not, pretty, write_atomically

Row = dict[str, Any]
Work = Callable[[str, Path], Sequence[Row]]
"""`work(name, folder) -> rows` does a part. The folder may hold what an earlier owner has left."""

DONE = "done.json"


@dataclasses.dataclass(frozen=True)
class ShareSettings:
    """Whether independent processes share a run. These settings don't change its numbers."""

    share_cells: bool = option(
        False, "share the run with other processes that have the same command and --out"
    )
    lease_seconds: float = option(
        120.0,
        "a process that shows no life for so long loses its part to another",
        above=0,
        most=10**6,
    )


class Part(NamedTuple):
    """A finished part.

    Attributes:
      folder: the folder of the process that finished it.
      rows: its result.
    """

    folder: Path
    rows: list[Row]


def check(share: ShareSettings, out: str) -> None:
    """Raises UserError unless the processes can find each other's folder and work alone."""
    if share.share_cells and not out:
        raise UserError("--share_cells: give the folder that the processes share by --out")
    if share.share_cells and processes.several():
        raise UserError("--share_cells: its processes aren't connected, leave out --distributed")


def do_all(
    home: Path, names: Sequence[str], work: Work, lease: float, poll: float = 1.0
) -> list[Part]:
    """Does the parts that no other process does, and waits until all are done.

    A part whose owner shows no life for `lease` seconds is taken over. Whether it does is told by
    this process's own clock, from changes of the claim's time, so the machines' clocks may differ.

    Args:
      home: the folder of the parts, which all processes see.
      names: the parts' names, the same in all processes.
      work: see `Work`. It gets the folder of this process's claim.
      lease: in seconds.
      poll: the seconds between two looks at parts that others do.

    Returns:
      The parts in the order of the names.
    """
    seen: dict[Path, tuple[int, float]] = {}
    while left := [name for name in names if not (home / name / DONE).exists()]:
        free = (number for name in left if (number := _claim(home / name, lease, seen)))
        mine = next(free, None)
        if mine is None:
            time.sleep(min(poll, lease / 4))
            continue
        with _alive(mine, lease):
            folder = mine.with_suffix("")
            _take_over(mine, folder)
            made = [dict(row) for row in work(mine.parent.name, folder)]
            record = {"claim": folder.name, "rows": made}
            write_atomically(mine.parent / DONE, pretty(record))
    return [_read(home / name) for name in names]


def finished(home: Path) -> list[Part]:
    """All parts that are done, in the order of their names."""
    return [_read(path.parent) for path in sorted(home.glob(f"*/{DONE}"))]


def agreed(path: Path, value: Any) -> Any:
    """The value that the first process has written into the file; JSON. The first writes its own.

    The folder is made if it isn't there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    mine.write_text(pretty(value), encoding="utf-8")
    with contextlib.suppress(FileExistsError):
        os.link(mine, path)
    mine.unlink()
    return json.loads(path.read_text(encoding="utf-8"))


def _claim(part: Path, lease: float, seen: dict[Path, tuple[int, float]]) -> Path | None:
    """The claim that this process has made on a part; None if the part is done or another's.

    `seen` holds the time of each claim file and when this process saw it first.
    """
    part.mkdir(parents=True, exist_ok=True)
    claims = _claims(part)
    if claims:
        newest = claims[-1]
        touched, since = newest.stat().st_mtime_ns, time.monotonic()
        if seen.get(newest, (None, 0.0))[0] != touched:
            seen[newest] = touched, since
        if since - seen[newest][1] < lease:
            return None
    mine = part / f"{len(claims) + 1}.claim"
    try:
        with mine.open("x", encoding="utf-8") as file:
            json.dump({"host": platform.node(), "process": os.getpid()}, file)
    except FileExistsError:
        return None  # another process was faster
    return None if (part / DONE).exists() else mine


def _claims(part: Path) -> list[Path]:
    """The claims of a part, oldest first."""
    return sorted(part.glob("*.claim"), key=lambda path: int(path.stem))


@contextlib.contextmanager
def _alive(claim: Path, lease: float) -> Iterator[None]:
    """Touches the claim four times a lease."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(lease / 4):
            with contextlib.suppress(OSError):  # a file system that is away for a moment
                os.utime(claim)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _take_over(claim: Path, folder: Path) -> None:
    """Makes the claim's folder, with a copy of what the newest earlier claim has left."""
    earlier = [path.with_suffix("") for path in _claims(claim.parent)[: int(claim.stem) - 1]]
    left = [path for path in earlier if path.exists()]
    if earlier:
        print(f"{claim.parent.name}: taken over from a process that shows no life", flush=True)
    try:
        if left:
            shutil.copytree(left[-1], folder)
    except (OSError, shutil.Error):  # its owner is alive after all and removes a checkpoint
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)


def _read(part: Path) -> Part:
    record = json.loads((part / DONE).read_text(encoding="utf-8"))
    return Part(part / record["claim"], [finite_or_not(row) for row in record["rows"]])
