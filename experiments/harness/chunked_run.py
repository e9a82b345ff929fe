"""A long batch of runs in chunks: progress, metrics, checkpoints, and resuming after a kill."""

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.harness import compilation, rows
from experiments.harness.progress import Progress
from experiments.harness.session import Session
from jaxtickets import runs
from jaxtickets.io import checkpoints, processes
from jaxtickets.io.errors import UserError
from jaxtickets.runs import Blocks
from jaxtickets.types import PyTree

Advance = Callable[[Blocks, int], tuple[Blocks, PyTree]]
"""`advance(state, i) -> (state, info)`: chunk i of all runs; both are blocks, info for a report."""

Report = Callable[[int, PyTree], tuple[list[dict[str, Any]], Mapping[str, float | str]]]
"""`report(i, info) -> (metrics rows, progress values)` of the joined info; raises on non-finite."""


def run_in_chunks(
    session: Session,
    phase: str,
    begin: Callable[[], PyTree],
    ends: Sequence[int],
    advance: Advance,
    report: Report,
    progress: Progress,
    shapes: Callable[[], PyTree] | None = None,
) -> PyTree:
    """The state of all runs after the last chunk, whatever happened in between.

    Resumes from the newest checkpoint in `checkpoints/PHASE` of the session's folder, if there is
    one. Metrics rows get `phase`, `chunk` and the `seconds` that the chunk took.

    Args:
      session: the folder, the run axis, and the time between two checkpoints.
      phase: the batch's name.
      begin: makes the first state, joined: a PyTree with a leading axis of runs.
      ends: the step that each chunk ends at, for the live line.
      advance, report: see above.
      progress: shows the live line.
      shapes: the shapes and types of the first state, for a resumed run, which doesn't make it;
        None: it is made to learn them.
    """
    folder, axis = session.folder, session.axis
    place = folder / "checkpoints" / phase
    if not place.exists():
        progress.announce()
    with compilation.watched(phase, progress.compiling), progress:
        found = checkpoints.restore(place, (shapes or begin)()) if place.exists() else None
        first, state = found or (0, begin())
        rows.keep_metrics(folder, lambda row: row["phase"] != phase or row["chunk"] < first)
        blocks = runs.split(state, axis)
        del state  # as large as the blocks
        saved = time.monotonic()
        for i in range(first, len(ends)):
            started = time.monotonic()
            blocks, info = advance(blocks, i)
            made, shown = report(i, jax.tree.map(np.asarray, runs.join(info)))
            seconds = round(time.monotonic() - started, 3)
            stamp = {"phase": phase, "chunk": i, "seconds": seconds}
            rows.append_metrics(folder, *({**stamp, **row} for row in made))
            progress.update(ends[i], **shown)
            waited = time.monotonic() - saved
            if i + 1 == len(ends) or processes.told(
                partial(operator.ge, waited, session.checkpoint_seconds)
            ):
                checkpoints.save(place, i + 1, runs.join(blocks))
                saved = time.monotonic()
    return runs.join(blocks)


def made_once(session: Session, phase: str, make: Callable[[], PyTree], template: PyTree) -> PyTree:
    """What `make` gives, from the checkpoint `phase` of a resumed run if it was made before.

    Args:
      session: the run.
      phase: its name, of its own.
      make: makes a PyTree of arrays.
      template: its shapes and types.
    """
    place = session.folder / "checkpoints" / phase
    if place.exists() and (found := checkpoints.restore(place, template)):
        return found[1]
    made = make()
    checkpoints.save(place, 0, made)
    return made


def check_finite(values: np.ndarray, names: list[str], step: int, what: str) -> None:
    """Stops the run when a value `[runs, steps]` isn't finite.

    Raises:
      UserError: saying what, in which run and at which step; `step` is that of the first column.
    """
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        run, offset = bad[np.argmin(bad[:, 1])]
        raise UserError(
            f"the {what} is not finite at step {step + int(offset)} in {names[run]}: lower the "
            "learning rate or choose other weights; what was written until then is kept"
        )


def seconds(folder: Path, phase: str) -> float:
    """Seconds that a phase has taken, over all processes that worked on it."""
    mine = [row for row in rows.read_metrics(folder) if row["phase"] == phase]
    spent = {row["chunk"]: row["seconds"] for row in mine}
    return sum(spent.values())
