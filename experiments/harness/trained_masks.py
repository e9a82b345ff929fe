"""Trains and evaluates masks, and makes a summary row of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import memory_batches
from experiments.harness.chunked_run import seconds
from experiments.harness.problem import Problem
from experiments.harness.session import Session
from experiments.harness.training_runs import Start, accuracies, train_all
from jaxtickets import masks, nets, runs
from jaxtickets.analysis import connectivity
from jaxtickets.io import tickets
from jaxtickets.io.files import plain
from jaxtickets.training import Watched
from jaxtickets.types import Prunable, Ticket, TrainState

LEADING = ("method", "density", "seed", "untrained_accuracy", "trained_accuracy", "seconds")
"""The first columns of a summary."""
CHECKED = ("method", "check", *LEADING[1:])
"""The first columns if some rows are checks of a method, such as its mask shuffled. The cell is
empty in the method's own rows."""


class Entry(NamedTuple):
    """A training that is to be done.

    Attributes:
      name: its fields in rows: method, density, seed, ...
      start: the start of the training.
    """

    name: dict[str, Any]
    start: Start


def train_entries(
    session: Session,
    phase: str,
    entries: Sequence[Entry],
    keep_at: tuple[int, ...] = (),
    end: int = 0,
) -> tuple[Watched, list[dict[str, Any]]]:
    """Trains all entries; returns their final states, stacked, and a summary row of each.

    A row holds
    - the fields of the entry's name;
    - test and validation accuracy before and after training;
    - the step and the test accuracy of the early stop;
    - `train_steps`, and `seconds`: the entry's share of the batch's time;
    - `kept/LEAF` and `density/LEAF`: the weights kept in each prunable leaf, and their fraction;
    - `effective_density`, `dead_inputs` and `dead_units/GROUP` if the net's wiring is known, see
      `connectivity.shape`.

    Args:
      session, phase, keep_at, end: see `train_all`.
      entries: the trainings to do.
    """
    made = untrained_rows(session, entries)
    starts = runs.stack([entry.start for entry in entries])
    names = [entry.name for entry in entries]
    ends = train_all(session, phase, starts, names, keep_at=keep_at, end=end)
    state = ends.state
    trained = accuracies(session, state.params, state.stats, "test")
    stopped = accuracies(session, ends.params, ends.stats, "test")
    validation = accuracies(session, state.params, state.stats, "validation")
    share = round(seconds(session.folder, phase) / len(entries), 3)
    for i, row in enumerate(made):
        row |= {
            "trained_accuracy": round(float(trained[i]), 6),
            "seconds": share,
            "train_steps": int(state.step[i] - starts.step[i]),
            "validation_accuracy": round(float(validation[i]), 6),
            "early_stop_step": int(ends.step[i]),
            "early_stop_accuracy": round(float(stopped[i]), 6),
        }
    return ends, made


def train_in_parts(
    session: Session,
    phase: str,
    entries: Sequence[Entry],
    most: int = 0,
) -> list[dict[str, Any]]:
    """The rows of `train_entries`, computed in parts that fit into memory.

    Each part is a phase of its own, see `memory_batches.batches_left`.

    Args:
      session, phase, entries: see `train_entries`.
      most: entries in a part; 0: as many as take about `memory_batches.BYTES`.
    """
    if not entries:
        return []
    params = entries[0].start.params
    made, missing = memory_batches.batches_left(
        session.folder, phase, session.axis, entries, params, most
    )
    for part, (name, mine) in zip(before_others(session, missing), missing, strict=True):
        done = train_entries(part, name, mine)[1]
        memory_batches.finish(session.folder, name, done)
        made += done
    return made


def before_others(
    session: Session, batches: Sequence[tuple[str, Sequence[Entry]]]
) -> list[Session]:
    """For each batch a session that knows of the batches after it, see `Session.later`."""
    end = session.problem.steps
    steps = [sum(end - int(entry.start.step) for entry in entries) for _, entries in batches]
    return [with_later(session, sum(steps[i + 1 :])) for i in range(len(steps))]


def with_later(session: Session, steps: int) -> Session:
    """The session of a part after which nets are trained for so many steps in all.

    What follows them isn't known if `session.later` is None. The session then stays as it is.
    """
    if session.later is None:
        return session
    return session._replace(later=session.later + session.problem.recipe.batch_size * steps)


def before_trainings(session: Session, trainings: float) -> Session:
    """The session of a part that so many whole trainings follow, and nothing else of length."""
    return with_later(session._replace(later=0.0), round(trainings * session.problem.steps))


def untrained_rows(session: Session, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The columns of `train_entries` that are known before training.

    Evaluates as many entries at a time as fit into memory.
    """
    copies = memory_batches.EVALUATION_COPIES
    most = memory_batches.fitting(entries[0].start.params, session.axis, copies)
    some = (entries[at : at + most] for at in range(0, len(entries), most))
    return [row for part in some for row in _untrained(session, part)]


def _untrained(session: Session, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    starts = runs.stack([entry.start for entry in entries])
    before = masks_applied(starts)
    test, validation = (
        accuracies(session, before.params, before.stats, part) for part in ("test", "validation")
    )
    return [
        {
            **entry.name,
            "untrained_accuracy": round(float(test[i]), 6),
            "untrained_validation_accuracy": round(float(validation[i]), 6),
            **_counted(session.problem, entry),
        }
        for i, entry in enumerate(entries)
    ]


def counted_rows(problem: Problem, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The columns of `train_entries` that depend on the masks alone, without any evaluation."""
    return [{**entry.name, **_counted(problem, entry)} for entry in entries]


def ended_rows(
    session: Session, phase: str, entries: Sequence[Entry], state: TrainState
) -> list[dict[str, Any]]:
    """The accuracies and last masks of trained nets: a row for each of a phase's runs.

    Args:
      session: the problem and the data.
      phase: its time is shared by the runs.
      entries: the runs; their own masks are not counted.
      state: the last states, stacked.
    """
    tested, validated = (
        accuracies(session, state.params, state.stats, part) for part in ("test", "validation")
    )
    spent = round(seconds(session.folder, phase) / len(entries), 3)
    ends = [
        entry._replace(start=entry.start._replace(mask=runs.take(state.mask, i)))
        for i, entry in enumerate(entries)
    ]
    return [
        {
            **row,
            "trained_accuracy": round(float(tested[i]), 6),
            "validation_accuracy": round(float(validated[i]), 6),
            "seconds": spent,
        }
        for i, row in enumerate(counted_rows(session.problem, ends))
    ]


def _counted(problem: Problem, entry: Entry) -> dict[str, float]:
    mask = entry.start.mask
    return {**_kept(mask, problem.prunable), **_connected(mask, problem)}


def save_entry(folder: Path, problem: Problem, entry: Entry, step: int, place: str = "") -> Path:
    """Saves an entry's ticket with all that is needed to use it elsewhere; returns its folder.

    Args:
      folder: the run's folder.
      problem: the net and its data.
      entry: its start holds the ticket.
      step: the training step at which the entry's parameters were taken.
      place: the folder's name under `tickets/`; empty: method, density and seed.
    """
    start, name = entry.start, entry.name
    params = start.params
    if start.fill is not None:  # pruned weights keep values other than zero
        params = masks.apply(start.mask, params, start.fill)
    ticket = Ticket(params, start.stats, start.mask, np.int32(step))
    provenance = {
        **name,
        "net": nets.to_json(problem.net),
        "prunable": problem.prunable,
        **{field: getattr(problem.dataset, field) for field in ("mean", "std", "classes")},
        "dataset": problem.dataset.name,
    }
    place = place or f"{name['method']}-density{name['density']:g}-seed{name['seed']}"
    return tickets.save_ticket(folder / "tickets" / place, ticket, plain(provenance))


@jax.jit
def masks_applied(starts: Start) -> Start:
    """The starts with their parameters masked."""
    return starts._replace(params=masks.apply(starts.mask, starts.params, starts.fill))


def _connected(mask: Any, problem: Problem) -> dict[str, float]:
    if not problem.wiring:
        return {}
    shape = _shape(mask, problem.wiring, problem.prunable)
    total = masks.size(mask, problem.prunable)
    effective = sum(int(count) for count in shape.effective.values())
    return {
        "effective_density": round(effective / total, 6),
        "dead_inputs": int(shape.dead_inputs),
        **{f"dead_units/{name}": int(count) for name, count in shape.dead_units.items()},
    }


_shape = jax.jit(connectivity.shape, static_argnums=(1, 2))


def _kept(mask: Any, prunable: Prunable) -> dict[str, float]:
    kept = {f"kept/{path}": int(n) for path, n in masks.counts(mask, prunable).items()}
    share = masks.densities(mask, prunable)
    return kept | {f"density/{path}": round(float(d), 6) for path, d in share.items()}
