"""Iterative pruning: executes a run's levels, each of which is one resumable batch of trainings."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.harness import rows, trained_masks
from experiments.harness.lineages import (
    LevelPlan,
    Lineage,
    dense_entries,
    first_weights,
    later_steps,
    level_entries,
    next_descent,
    unpruned,
)
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, train_entries, with_later
from jaxtickets import runs
from jaxtickets.io import checkpoints
from jaxtickets.training import Watched
from jaxtickets.types import Params, Stats

ROWS = "summary"
"""The phase of the metrics rows that hold the summary rows of finished levels."""
Look = Callable[[Sequence[Entry], Watched], list[dict[str, Any]]]
"""`look(entries, their final states, stacked) -> a dict of more columns for each entry`."""


def descend(
    session: Session,
    plan: LevelPlan,
    lineages: Sequence[Lineage],
    after: Callable[[list[dict[str, Any]]], object],
    rewound: tuple[Params, Stats] | None = None,
    look: Look | None = None,
    dense: tuple[Params, Stats] | None = None,
) -> list[dict[str, Any]]:
    """Executes all levels, from the dense nets (level 0) on; returns the rows of `train_entries`.

    Rows are named by method (`dense`, `ticket` or a control), density, seed, level, copy and order.
    Tickets are saved before they are trained. The state after each level is a checkpoint; the last
    two are kept. The training within a level has its own checkpoints, which are removed at its end.

    Args:
      session: the net, its recipe and data, and the run's folder, see `train_all`.
      plan: the plan of the levels.
      lineages: the lineages, which are trained in one batch.
      after: called with all summary rows at the end of each level.
      rewound: parameters and statistics at the rewind step, stacked over lineages; None: level 0
        trains the dense nets from their initialisation and keeps these weights.
      look: gives more columns for the summary rows of a level.
      dense: the trained dense nets, stacked over lineages. If given, level 0 isn't trained, and
        tickets are rewound to the initialisation.

    Raises:
      ValueError: lineages differ in the last step of a level's training; or they differ in the
        rewind step, and neither `rewound` nor `dense` is given.
    """
    end = _shared({plan.going(line).end for line in lineages}, "end at one step")
    rewinds = {line.rewind for line in lineages}
    if rewound is None and dense is None:
        _shared(rewinds, "rewind to one step, unless `rewound` is given")
    folder, problem = session.folder, session.problem
    place = folder / "checkpoints" / "levels"
    first, descent = 0, None
    keep_at: tuple[int, ...]
    template = jax.eval_shape(lambda: unpruned(*first_weights(lineages), *first_weights(lineages)))
    if found := checkpoints.restore(place, template):
        first, descent = found[0] + 1, found[1]
    elif dense is not None:
        first, descent = 1, unpruned(*dense, *first_weights(lineages))
    elif rewound is not None:
        descent = unpruned(*rewound, *rewound)
    rows.keep_metrics(folder, lambda row: row["phase"] != ROWS or row["chunk"] < first)
    phases = [f"level-{level:02d}" for level in range(plan.levels + 1)]
    for level in range(first, len(phases)):
        if descent is None:
            entries = dense_entries(problem, lineages)
            keep_at, last = tuple(rewinds), problem.steps
        else:
            keep_at, last = (), end
            entries = level_entries(session, plan, lineages, descent, level)
            for line, entry in zip(lineages, entries, strict=False):
                name = "-".join(f"{key}{value}" for key, value in line.name.items())
                how = plan.going(line)
                length = how.end - how.start
                step = how.start if how.rewound else plan.dense_steps + (level - 1) * length
                trained_masks.save_entry(folder, problem, entry, step, f"level{level:02d}-{name}")
        again = with_later(session, later_steps(plan, lineages, level))
        again = again._replace(problem=plan.retrain(problem, entries))
        ends, made = train_entries(again, phases[level], entries, keep_at=keep_at, end=last)
        if look is not None:
            made = [row | more for row, more in zip(made, look(entries, ends), strict=True)]
        begun = runs.stack([entry.start.params for entry in entries[: len(lineages)]])
        descent = next_descent(ends, begun, descent)
        rows.append_metrics(folder, *({"phase": ROWS, "chunk": level, **row} for row in made))
        checkpoints.save(place, level, descent)
        shutil.rmtree(folder / "checkpoints" / phases[level], ignore_errors=True)
        after(summary(folder))
    if first == len(phases):  # the run may have been killed before this call
        after(summary(folder))
    return summary(folder)


def _shared(steps: set[int], duty: str) -> int:
    """The one step that all lineages share; raises ValueError if there are several."""
    if len(steps) > 1:
        of_each = ", ".join(map(str, sorted(steps)))
        raise ValueError(f"lineages of one descent must {duty}, but have steps {of_each}")
    return next(iter(steps))


def summary(folder: Path) -> list[dict[str, Any]]:
    """The summary rows of all finished levels."""
    found = [row for row in rows.read_metrics(folder) if row["phase"] == ROWS]
    return [{k: v for k, v in row.items() if k not in ("phase", "chunk")} for row in found]
