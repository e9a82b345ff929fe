"""Trains the dense nets and the cells, in this process alone or shared with others."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.harness import event_files, memory_batches, rows, shared_parts
from experiments.harness.dense_store import dense_entry
from experiments.harness.session import Session
from experiments.harness.shared_parts import ShareSettings
from experiments.harness.trained_masks import Entry, train_entries, train_in_parts
from experiments.harness.training_runs import train_all
from jaxtickets import runs
from jaxtickets.training import Watched

Row = dict[str, Any]
PARTS = "parts"


def train_dense(
    session: Session, keep_at: tuple[int, ...], share: ShareSettings
) -> tuple[Watched, list[Row]]:
    """Trains the dense net of each seed; returns the ends, stacked, and a summary row of each.

    Args:
      session: the run.
      keep_at: the steps whose weights are kept, see `training.watch`.
      share: whether other processes do some of it. A net is then a part.
    """
    entries = [dense_entry(session.problem, one) for one in session.seeds]
    if not share.share_cells:
        return train_entries(session, "dense", entries, keep_at=keep_at)

    names = {f"dense-{i}": entry for i, entry in enumerate(entries)}

    def work(name: str, folder: Path) -> list[Row]:
        mine = [names[name]]
        return train_entries(session._replace(folder=folder), "dense", mine, keep_at=keep_at)[1]

    done = shared_parts.do_all(session.folder / PARTS, list(names), work, share.lease_seconds)
    # the last checkpoint of a finished net holds its end, so that nothing is trained here
    ends = [
        train_all(
            session=session._replace(folder=one.folder),
            phase="dense",
            starts=runs.stack([entry.start]),
            names=[entry.name],
            keep_at=keep_at,
        )
        for entry, one in zip(entries, done, strict=True)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *ends)
    return stacked, [row for one in done for row in one.rows]


def train_cells(
    session: Session, entries: Sequence[Entry], most: int, share: ShareSettings
) -> list[Row]:
    """The summary rows of the cells.

    Args:
      session: the run.
      entries: the trainings.
      most: how many are trained at a time; 0: as many as fit into memory, or, if processes share
        them, one on each of this process's lanes.
      share: whether other processes do some of them.
    """
    if not share.share_cells:
        return train_in_parts(session._replace(later=0.0), "grid", entries, most=most)
    home = session.folder / PARTS
    params, axis = entries[0].start.params, session.axis
    fitting = partial(memory_batches.fitting, params, axis, memory_batches.COPIES)
    size = shared_parts.agreed(home / "size.json", fitting(most or runs.turn(axis)))
    starts = range(0, len(entries), size)
    parts = {f"grid-{i:02d}": entries[at : at + size] for i, at in enumerate(starts)}

    def work(name: str, folder: Path) -> list[Row]:
        made = train_entries(session._replace(folder=folder), name, parts[name])[1]
        memory_batches.finish(folder, name, made)
        return made

    done = shared_parts.do_all(home, list(parts), work, share.lease_seconds)
    return [row for one in done for row in one.rows]


def by_one(session: Session, share: ShareSettings, report: Callable[[], None]) -> None:
    """Calls `report` in this process; if processes share the run, in one of them alone.

    The run's metrics then are those of its parts.
    """
    if not share.share_cells:
        return report()
    home = session.folder / PARTS

    def work(name: str, folder: Path) -> list[Row]:
        rows.keep_metrics(session.folder, lambda row: False)
        for part in shared_parts.finished(home):
            rows.append_metrics(session.folder, *rows.read_metrics(part.folder))
        event_files.drop_parts(home)
        report()
        return []

    shared_parts.do_all(home, ["report"], work, share.lease_seconds)
