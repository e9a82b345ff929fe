"""Trainings done once and for all: their rows are kept, their tickets saved, their state removed.

A run that goes on finds what is done and trains the rest.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness import memory_batches, rows
from experiments.harness.problem import Problem
from experiments.harness.trained_masks import Entry, save_entry, train_entries
from jaxtickets import runs
from jaxtickets.runs import Axis
from jaxtickets.types import Dataset

Row = dict[str, Any]


def train(
    folder: Path,
    part: Path,
    phase: str,
    problem: Problem,
    axis: Axis,
    entries: Mapping[str, Entry],
    data: Dataset,
    every: float,
) -> dict[str, Row]:
    """Ticket -> row of `train_entries`; as many at a time as fit into memory.

    Args:
      folder: in `folder/tickets` are the tickets at the end of training.
      part: where metrics and checkpoints are.
      phase: the name of the trainings in `part`.
      problem, axis, data, every: see `train_entries`.
      entries: name of the ticket -> what is trained.
    """
    if not entries:
        return {}
    params = next(iter(entries.values())).start.params
    found, missing = memory_batches.plan(part, phase, axis, list(entries.values()), params)
    names = iter([*entries][len(found) :])
    for step, mine in missing:
        ends, done = train_entries(part, step, problem, axis, mine, data, every)
        for i, entry in enumerate(mine):
            params, stats = runs.take((ends.state.params, ends.state.stats), i)
            end = Entry(entry.name, entry.start._replace(params=params, stats=stats))
            save_entry(folder, problem, end, problem.steps, next(names))
        memory_batches.finish(part, step, done)
        found += done
    return dict(zip(entries, found, strict=True))


def keep(part: Path, phase: str, made: Sequence[Row]) -> None:
    """Writes rows into the metrics in `part`, in place of those that a kill left there."""
    rows.keep_metrics(part, lambda row: row["phase"] != phase)
    rows.append_metrics(part, *({"phase": phase, **row} for row in made))


def known(part: Path, phase: str) -> list[Row]:
    """The rows of `keep`, none if there are none yet."""
    found = [row for row in rows.read_metrics(part) if row["phase"] == phase]
    return [{name: value for name, value in row.items() if name != "phase"} for row in found]
