"""Masks side by side: untrained and trained, over seeds; a summary and a table."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats as statistics

from jaxtickets import masks, nets, runs
from jaxtickets.analysis import connectivity
from jaxtickets.drivers.loop import seconds
from jaxtickets.drivers.problem import Problem
from jaxtickets.drivers.training_loop import Start, accuracies, train_all
from jaxtickets.io import rows, tickets, trees
from jaxtickets.io.files import plain
from jaxtickets.runs import Axis
from jaxtickets.training import Watched
from jaxtickets.types import Dataset, Prunable, Ticket

LEADING = ("method", "density", "seed", "untrained_accuracy", "trained_accuracy", "seconds")
"""The first columns of a summary."""
CHECKED = ("method", "check", *LEADING[1:])
"""The same where some rows are checks of a method: its mask shuffled, say; others lack the cell."""


class Entry(NamedTuple):
    """One training to be: what is said of it (method, density, seed, ...), and its start."""

    name: dict[str, Any]
    start: Start


def train_entries(
    folder: Path,
    phase: str,
    problem: Problem,
    axis: Axis,
    entries: Sequence[Entry],
    data: Dataset,
    every: float,
    keep_at: tuple[int, ...] = (),
    end: int = 0,
) -> tuple[Watched, list[dict[str, Any]]]:
    """Trains all entries; returns their last states, stacked, and a summary row of each.

    A row holds what the entry is called, test accuracy before and after training, `seconds` (its
    share of the batch's time), `train_steps`, validation accuracy after training and before; of
    the early stop its step and its test accuracy; `kept/LEAF` and `density/LEAF`, the weights left
    in each prunable leaf and their share of it; where the net's wiring is known also
    `effective_density`, `dead_inputs` and `dead_units/GROUP`, see `connectivity.shape`.

    Args:
      folder, phase, problem, axis, data, every, keep_at, end: see `train_all`.
      entries: what is trained.
    """
    made = untrained_rows(problem, axis, entries, data)
    starts = runs.stack([entry.start for entry in entries])
    names = [entry.name for entry in entries]
    ends = train_all(folder, phase, problem, axis, starts, names, data, every, keep_at, end)
    state = ends.state
    trained = accuracies(problem, axis, state.params, state.stats, data.test)
    stopped = accuracies(problem, axis, ends.params, ends.stats, data.test)
    validation = accuracies(problem, axis, state.params, state.stats, data.validation)
    share = round(seconds(folder, phase) / len(entries), 3)
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


PART_BYTES = 3e9
COPIES = 40
"""What a run's training takes, in copies of its parameters: state, moments, early stop, mask, and
what is in flight while batches are cut, joined and saved; measured."""
EVALUATION_COPIES = 10
"""The same of its evaluation."""


def train_in_parts(
    folder: Path,
    phase: str,
    problem: Problem,
    axis: Axis,
    entries: Sequence[Entry],
    data: Dataset,
    every: float,
    most: int = 0,
) -> list[dict[str, Any]]:
    """The rows of `train_entries`, however many entries there are: parts fit into memory.

    Each part is a phase of its own, see `parts`.

    Args:
      folder, phase, problem, axis, entries, data, every: see `train_entries`.
      most: entries of a part; 0: what takes about `PART_BYTES`.
    """
    made, missing = parts(folder, phase, axis, entries, most)
    for name, mine in missing:
        done = train_entries(folder, name, problem, axis, mine, data, every)[1]
        finish_part(folder, name, done)
        made += done
    return made


def parts(
    folder: Path, phase: str, axis: Axis, entries: Sequence[Entry], most: int = 0
) -> tuple[list[dict[str, Any]], list[tuple[str, Sequence[Entry]]]]:
    """What was trained before, and what is left to train, in parts that fit into memory.

    A part is a whole number of the axis' blocks, so that the numbers are those of one batch. Each
    is a phase of its own, `PHASE-00` and so on, done once and for all. How large it is depends on
    the number of devices, and so may change from one session of a run to the next: rows are those
    of the first entries, in whatever parts they were trained, and a part that was begun with
    another number of entries begins anew.

    Args:
      folder, phase, axis, entries, most: see `train_in_parts`.

    Returns:
      The rows that `finish_part` has written, of the first entries; and name and entries of each
      part that is missing.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.read_metrics(folder):
        if re.fullmatch(rf"{re.escape(phase)}-\d+-rows", row["phase"]):
            found.setdefault(row.pop("phase").removesuffix("-rows"), []).append(row)
    for name in found:
        shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)
    made = [row for mine in found.values() for row in mine]
    if len(made) == len(entries):
        return made, []
    most = _most(entries[0], axis, COPIES, most)
    missing = []
    for number, start in enumerate(range(len(made), len(entries), most), start=len(found)):
        name, mine = f"{phase}-{number:02d}", entries[start : start + most]
        _forget_others(folder / "checkpoints" / name, len(mine))
        missing.append((name, mine))
    return made, missing


def finish_part(folder: Path, name: str, done: Sequence[Mapping[str, Any]]) -> None:
    """Keeps a part's rows, by which it is known to be finished, and drops its state."""
    rows.append_metrics(folder, *({"phase": f"{name}-rows", **row} for row in done))
    shutil.rmtree(folder / "checkpoints" / name, ignore_errors=True)


def _forget_others(place: Path, count: int) -> None:
    """Removes checkpoints that aren't of so many trainings."""
    for path in place.glob(f"*/{trees.MANIFEST}"):
        try:
            leaves = trees.read_manifest(path.parent)["leaves"]
        except trees.DamagedError:
            continue  # `restore` says so
        if leaves[0]["shape"][0] != count:
            shutil.rmtree(place)
            return


def _most(entry: Entry, axis: Axis, copies: int, asked: int = 0) -> int:
    """How many entries fit into memory, as whole blocks of the axis; `asked` in place of that."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(entry.start.params))
    unit = runs.turn(axis)
    return unit * max(1, (asked or int(PART_BYTES / (copies * size))) // unit)


def untrained_rows(
    problem: Problem, axis: Axis, entries: Sequence[Entry], data: Dataset
) -> list[dict[str, Any]]:
    """The part of the rows of `train_entries` that is known before training.

    As many at a time as fit into memory.
    """
    most = _most(entries[0], axis, EVALUATION_COPIES)
    parts = (entries[at : at + most] for at in range(0, len(entries), most))
    return [row for part in parts for row in _untrained(problem, axis, part, data)]


def _untrained(
    problem: Problem, axis: Axis, entries: Sequence[Entry], data: Dataset
) -> list[dict[str, Any]]:
    starts = runs.stack([entry.start for entry in entries])
    before = masks_applied(starts)
    test, validation = (
        accuracies(problem, axis, before.params, before.stats, split)
        for split in (data.test, data.validation)
    )
    return [
        {
            **entry.name,
            "untrained_accuracy": round(float(test[i]), 6),
            "untrained_validation_accuracy": round(float(validation[i]), 6),
            **_counted(problem, entry),
        }
        for i, entry in enumerate(entries)
    ]


def counted_rows(problem: Problem, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The part of the rows of `train_entries` that masks alone tell; no image is looked at."""
    return [{**entry.name, **_counted(problem, entry)} for entry in entries]


def _counted(problem: Problem, entry: Entry) -> dict[str, float]:
    mask = entry.start.mask
    return {**_kept(mask, problem.prunable), **_connected(mask, problem)}


def save_entry(folder: Path, problem: Problem, entry: Entry, step: int, place: str = "") -> Path:
    """Saves an entry's ticket, with all that is needed to use it elsewhere, and returns its folder.

    Args:
      folder: the run's.
      problem: the net and its data.
      entry: its start holds the ticket.
      step: the training step that the entry's parameters come from.
      place: the folder's name under `tickets/`; by default method, density and seed.
    """
    start, name = entry.start, entry.name
    params = start.params
    if start.fill is not None:  # pruned weights have values of their own
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


def grouped(
    summary: Sequence[dict[str, Any]],
) -> dict[tuple[str, str, float], list[dict[str, Any]]]:
    """The rows of each method, check of it (empty for the method's own) and density."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in summary:
        key = row["method"], row.get("check") or "", row["density"]
        groups.setdefault(key, []).append(row)
    return groups


def table(summary: Sequence[dict[str, Any]]) -> str:
    """Mean ± sample standard deviation over seeds of each method and density, as text.

    Where there are checks of methods, they have a column. A line below the table names each method
    and density that has emptied a layer.
    """
    groups = grouped(summary)
    checked = any(check for _, check, _ in groups)
    layers = [name for name in summary[0] if name.startswith("kept/")]
    head = ["method", *(["check"] if checked else []), "density", "n", "untrained %", "trained %"]
    head += [name.removeprefix("kept/").removesuffix("/kernel") for name in layers]
    lines = [head]
    for (method, check, density), members in groups.items():
        left = [f"{np.mean([row[name] for row in members]):.0f}" for name in layers]
        there = [all(f"{when}_accuracy" in row for row in members) for when in TIMES]
        both = [
            spread([row[f"{when}_accuracy"] for row in members]) if known else ""
            for when, known in zip(TIMES, there, strict=True)
        ]
        named = [method, *([check] if checked else []), f"{density:g}"]
        lines.append([*named, str(len(members)), *both, *left])
    return "\n".join([aligned(lines), *lost(summary)])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Rows of words as text: the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


TIMES = ("untrained", "trained")


def spread(values: Sequence[float], scale: float = 100, digits: int = 2) -> str:
    """`97.31 ± 0.12`: mean and sample standard deviation, without the latter for n = 1.

    Args:
      values: in % by default, and so fractions.
      scale: what they are multiplied by.
      digits: after the point.
    """
    mean = f"{scale * np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {scale * np.std(values, ddof=1):.{digits}f}"


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float]:
    """The mean difference over the seeds of both, and half of its 95 % interval.

    Student's t interval of the differences; infinite for a single seed.
    """
    seeds = sorted(set(ours) & set(theirs))
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    n = len(differences)
    if n < 2:
        return float(np.mean(differences)), float("inf")
    half = statistics.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / n**0.5
    return float(np.mean(differences)), float(half)


def lost(summary: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each method and density that has emptied a layer."""
    found = []
    for (method, check, density), members in grouped(summary).items():
        layers = [name for name in members[0] if name.startswith("kept/")]
        empty = [name for name in layers if not all(row[name] for row in members)]
        if empty:
            which = f"{method} ({check})" if check else method
            where = ", ".join(sorted(name.removeprefix("kept/") for name in empty))
            found.append(f"a layer is lost: {which} at {density:g} keeps nothing in {where}")
    return found


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
