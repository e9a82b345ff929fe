"""Masks side by side: untrained and trained, over seeds; a summary and a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtickets import masks, nets, runs
from jaxtickets.io import rows, tickets
from jaxtickets.io.files import plain
from jaxtickets.io.loop import seconds
from jaxtickets.io.problem import Problem
from jaxtickets.io.training_loop import Start, accuracies, stack, train_all
from jaxtickets.runs import Axis
from jaxtickets.types import Dataset, Prunable, Ticket, TrainState

LEADING = ("method", "density", "seed", "untrained_accuracy", "trained_accuracy", "seconds")


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
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Trains all entries; returns their last states, stacked, and a summary row of each.

    A row holds what the entry is called, test accuracy before and after training, `seconds` (its
    share of the batch's time), validation accuracy after training, the step of the lowest
    validation loss, `kept/LEAF` and `density/LEAF`, the weights left in each prunable
    leaf and their share of it.
    """
    starts = stack([entry.start for entry in entries])
    names = [entry.name for entry in entries]
    before = masks_applied(starts)
    untrained = accuracies(problem, axis, before.params, before.stats, data.test)
    seen = [runs.share(split, axis) for split in (data.train, data.validation)]
    state = train_all(folder, phase, problem, axis, starts, names, seen[0], seen[1], every)
    trained = accuracies(problem, axis, state.params, state.stats, data.test)
    share = round(seconds(folder, phase) / len(entries), 3)
    history = _history(folder, phase, names)
    made = []
    for i, name in enumerate(names):
        lowest = min(history[i], key=lambda row: row["loss"])
        made.append(
            {
                **name,
                "untrained_accuracy": round(float(untrained[i]), 6),
                "trained_accuracy": round(float(trained[i]), 6),
                "seconds": share,
                "validation_accuracy": round(history[i][-1]["accuracy"], 6),
                "early_stop_step": lowest["step"],
                **_kept(entries[i].start.mask, problem.prunable),
            }
        )
    return state, made


def save_entry(folder: Path, problem: Problem, entry: Entry, step: int) -> Path:
    """Saves an entry's ticket, with all that is needed to use it elsewhere, and returns its folder.

    `step` is the training step that the entry's parameters come from.
    """
    start, name = entry.start, entry.name
    ticket = Ticket(start.params, start.stats, start.mask, np.int32(step))
    provenance = {
        **name,
        "net": nets.to_json(problem.net),
        "prunable": problem.prunable,
        **{field: getattr(problem.dataset, field) for field in ("mean", "std", "classes")},
        "dataset": problem.dataset.name,
    }
    place = f"{name['method']}-density{name['density']:g}-seed{name['seed']}"
    return tickets.save_ticket(folder / "tickets" / place, ticket, plain(provenance))


def masks_applied(starts: Start) -> Start:
    """The starts with their parameters masked."""
    return starts._replace(params=masks.apply(starts.mask, starts.params))


def table(summary: Sequence[dict[str, Any]]) -> str:
    """Mean ± sample standard deviation over seeds of each method and density, as text."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in summary:
        groups.setdefault((row["method"], row["density"]), []).append(row)
    layers = [name for name in summary[0] if name.startswith("kept/")]
    head = ["method", "density", "n", "untrained %", "trained %"]
    head += [name.removeprefix("kept/").removesuffix("/kernel") for name in layers]
    lines = [head]
    for (method, density), members in groups.items():
        left = [f"{np.mean([row[name] for row in members]):.0f}" for name in layers]
        both = [spread([row[f"{when}_accuracy"] for row in members]) for when in TIMES]
        lines.append([method, f"{density:g}", str(len(members)), *both, *left])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


TIMES = ("untrained", "trained")


def spread(fractions: Sequence[float]) -> str:
    """`97.31 ± 0.12`: mean and sample standard deviation in %, without the latter for n = 1."""
    mean = f"{100 * np.mean(fractions):.2f}"
    return mean if len(fractions) < 2 else f"{mean} ± {100 * np.std(fractions, ddof=1):.2f}"


def _kept(mask: Any, prunable: Prunable) -> dict[str, float]:
    kept = {f"kept/{path}": int(n) for path, n in masks.counts(mask, prunable).items()}
    share = masks.densities(mask, prunable)
    return kept | {f"density/{path}": round(float(d), 6) for path, d in share.items()}


def _history(
    folder: Path, phase: str, names: Sequence[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """The metrics rows of each run, in order."""
    found = [row for row in rows.read_metrics(folder) if row["phase"] == phase]
    return [
        [row for row in found if all(row[key] == value for key, value in name.items())]
        for name in names
    ]
