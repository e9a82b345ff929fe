"""Executes a batch of runs in chunks, with progress, metrics, checkpoints and resume."""

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from experiments.harness import compilation, rows
from experiments.harness.progress import Progress
from jaxtickets import runs
from jaxtickets.io import checkpoints, processes
from jaxtickets.io.errors import UserError
from jaxtickets.runs import Axis, Blocks
from jaxtickets.types import PyTree


class RunPlace(Protocol):
    """What a chunked run needs of a `Session`, or of another record with these fields."""

    @property
    def folder(self) -> Path:
        """The run's folder."""

    @property
    def axis(self) -> Axis:
        """How runs are batched."""

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds between two checkpoints."""


Advance = Callable[[Blocks, int], tuple[Blocks, PyTree]]
"""`advance(state, i) -> (state, info)` executes chunk i of all runs. State and info are blocks."""

Report = Callable[[int, PyTree], tuple[list[dict[str, Any]], Mapping[str, float | str]]]
"""`report(i, info) -> (metrics rows, progress values)` from the joined info of chunk i. It raises
UserError if a value isn't finite."""


def run_in_chunks(
    session: RunPlace,
    phase: str,
    begin: Callable[[], PyTree],
    ends: Sequence[int],
    advance: Advance,
    report: Report,
    progress: Progress,
    shapes: Callable[[], PyTree] | None = None,
    first_values: Callable[[PyTree], Mapping[str, float | str]] | None = None,
) -> PyTree:
    """Executes all chunks and returns the final state of all runs, joined.

    A resumed run starts from the newest checkpoint in `checkpoints/PHASE` of the session's folder,
    and gives the same result. Metrics rows get `phase`, `chunk` and the chunk's `seconds`; a chunk
    without rows leaves one with these, of the phase `PHASE, between evaluations`.

    Args:
      session: the folder, the run axis, and the time between two checkpoints.
      phase: the batch's name.
      begin: makes the initial state, a PyTree with a leading axis of runs.
      ends: the last step of each chunk, for the live line.
      advance, report: see `Advance` and `Report`.
      progress: shows the live line.
      shapes: gives the shapes and types of the initial state, so that a resumed run needn't make
        it; None: a resumed run calls `begin` for them.
      first_values: gives the progress values of the initial state, which are shown before the
        first chunk is compiled; None shows none.
    """
    folder, axis = session.folder, session.axis
    place = folder / "checkpoints" / phase
    if not place.exists():
        progress.announce()
    with compilation.watched(phase, progress.compiling), progress:
        found = checkpoints.restore(place, (shapes or begin)()) if place.exists() else None
        first, state = found or (0, begin())
        if first_values and not found:
            progress.announce(**first_values(state))
        rows.keep_metrics(
            folder,
            lambda row: row["phase"] not in (phase, _silent(phase)) or row["chunk"] < first,
        )
        blocks = runs.split(state, axis)
        del state  # as large as the blocks
        saved = time.monotonic()
        for i in range(first, len(ends)):
            started = time.monotonic()
            blocks, info = advance(blocks, i)
            made, shown = report(i, jax.tree.map(np.asarray, runs.join(info)))
            seconds = round(time.monotonic() - started, 3)
            stamp = {"phase": phase if made else _silent(phase), "chunk": i, "seconds": seconds}
            rows.append_metrics(folder, *({**stamp, **row} for row in made or [{}]))
            progress.update(ends[i], **shown)
            waited = time.monotonic() - saved
            if i + 1 == len(ends) or processes.told(
                partial(operator.ge, waited, session.checkpoint_seconds)
            ):
                checkpoints.save(place, i + 1, runs.join(blocks))
                saved = time.monotonic()
    return runs.join(blocks)


def _silent(phase: str) -> str:
    """The phase of the rows that hold only the time of chunks without rows of their own."""
    return f"{phase}, between evaluations"


def made_once(
    session: RunPlace, phase: str, make: Callable[[], PyTree], template: PyTree
) -> PyTree:
    """The result of `make`. A resumed run loads it from the checkpoint `phase` if it is there.

    Args:
      session: the run.
      phase: the checkpoint's name, which no other phase has.
      make: makes a PyTree of arrays.
      template: a PyTree with the same structure, shapes and types.
    """
    place = session.folder / "checkpoints" / phase
    if place.exists() and (found := checkpoints.restore(place, template)):
        return found[1]
    made = make()
    checkpoints.save(place, 0, made)
    return made


def check_finite(values: np.ndarray, names: list[str], step: int, what: str) -> None:
    """Stops the run if a value isn't finite.

    Args:
      values: float`[runs, steps]`.
      names: the name of each run.
      step: the step of the first column.
      what: the name of the quantity.

    Raises:
      UserError: a value isn't finite. The message gives the quantity, the run and the step.
    """
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        run, offset = bad[np.argmin(bad[:, 1])]
        raise UserError(
            f"the {what} is not finite at step {step + int(offset)} in {names[run]}: lower the "
            "learning rate or choose other weights; the records until then are kept"
        )


def seconds(folder: Path, phase: str) -> float:
    """The seconds that a phase has taken, summed over all sessions of a resumed run."""
    phases = phase, _silent(phase)
    mine = [row for row in rows.read_metrics(folder) if row["phase"] in phases]
    spent = {row["chunk"]: row["seconds"] for row in mine}
    return sum(spent.values())
