"""Trainings that are never repeated: rows and tickets are kept, checkpoints are removed.

A resumed run loads the finished trainings and does the rest.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness import memory_batches, rows
from experiments.harness.session import Session
from experiments.harness.trained_masks import (
    Entry,
    before_others,
    save_entry,
    train_entries,
)
from jaxtickets import runs

Row = dict[str, Any]


def train(
    session: Session,
    home: Path,
    phase: str,
    entries: Mapping[str, Entry],
) -> dict[str, Row]:
    """Trains entries, as many at a time as fit into memory; returns ticket -> summary row.

    Args:
      session: see `train_entries`. Metrics and checkpoints go into its folder.
      home: the trained tickets are saved in `home/tickets`.
      phase: the prefix of the phases' names.
      entries: the trained ticket's name -> what is trained.
    """
    if not entries:
        return {}
    params = next(iter(entries.values())).start.params
    found, missing = memory_batches.batches_left(
        session.folder, phase, session.axis, list(entries.values()), params
    )
    names = iter([*entries][len(found) :])
    for part, (step, mine) in zip(before_others(session, missing), missing, strict=True):
        ends, done = train_entries(part, step, mine)
        for i, entry in enumerate(mine):
            params, stats = runs.take((ends.state.params, ends.state.stats), i)
            end = Entry(entry.name, entry.start._replace(params=params, stats=stats))
            save_entry(home, session.problem, end, session.problem.steps, next(names))
        memory_batches.finish(session.folder, step, done)
        found += done
    return dict(zip(entries, found, strict=True))


def keep(part: Path, phase: str, made: Sequence[Row]) -> None:
    """Writes the rows of a phase into the metrics in `part`, replacing those of a killed run."""
    rows.keep_metrics(part, lambda row: row["phase"] != phase)
    rows.append_metrics(part, *({"phase": phase, **row} for row in made))


def known(part: Path, phase: str) -> list[Row]:
    """The rows that `keep` has written for a phase; empty if there are none yet."""
    found = [row for row in rows.read_metrics(part) if row["phase"] == phase]
    return [{name: value for name, value in row.items() if name != "phase"} for row in found]
