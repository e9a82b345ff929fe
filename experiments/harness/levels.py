"""Iterative pruning: executes a run's levels, each of which is one resumable batch of trainings."""

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import rows, trained_masks
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, train_entries
from experiments.harness.training_runs import Start
from jaxtickets import masks, runs
from jaxtickets.io import checkpoints
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
from jaxtickets.recipes.imp import LevelTraining
from jaxtickets.recipes.mask_actions import Fill
from jaxtickets.recipes.ticket_controls import CONTROLS, Control, ControlInputs, apply_control
from jaxtickets.training import Watched
from jaxtickets.types import Dataset, Mask, Params, Stats

ROWS = "summary"
"""The phase of the metrics rows that hold the summary rows of finished levels."""


class Lineage(NamedTuple):
    """A sequence of tickets, one for each level, each pruned from the one before.

    Attributes:
      seed: the seed.
      hyper: learning rate and warm-up steps, scalars.
      name: its fields in rows: the seed, and what else differs between lineages.
      rewind: the training step to which its tickets are rewound.
      criterion: the pruning criterion; empty: that of the settings.
      ones: gives the weights that a ticket keeps their values.
      zeros: gives the pruned weights of a ticket their values; None: zero, in all lineages.
    """

    seed: Seed
    hyper: Hyper
    name: dict[str, Any]
    rewind: int = 0
    criterion: str = ""
    ones: Control = CONTROLS["ticket"]
    zeros: Fill | None = None


class Descent(NamedTuple):
    """The state between two levels. Every leaf has a leading axis of lineages.

    Attributes:
      mask: the finished level's mask.
      begun: the parameters at the start of its training.
      params, stats: the parameters and statistics at the end of its training.
      rewound, rewound_stats: the parameters and statistics at the rewind step.
    """

    mask: Mask
    begun: Params
    params: Params
    stats: Stats
    rewound: Params
    rewound_stats: Stats


class LevelPlan(NamedTuple):
    """The plan of a run's levels.

    Attributes:
      levels: the number of levels after level 0, which is dense.
      prune: `prune(line, descent after the level before, level, data) -> the level's mask`.
      going: `going(line) -> LevelTraining`: how a level's nets are trained.
      dense_steps: the number of training steps of the dense nets.
      copies: control -> how many copies of it a lineage trains beside the ticket.
      copies_every: trains these copies at every n-th level, and at the last.
      control_levels: the levels that also train one copy of every other control.
      orders: how many times each net is trained, each time in another order of the data.
      retrain: `retrain(problem, a level's entries) -> the problem that they are trained on`.
    """

    levels: int
    prune: Callable[[Lineage, Descent, int, Dataset], Mask]
    going: Callable[[Lineage], LevelTraining]
    dense_steps: int
    copies: dict[str, int]
    copies_every: int = 1
    control_levels: tuple[int, ...] = ()
    orders: int = 1
    retrain: Callable[[Problem, Sequence[Entry]], Problem] = lambda problem, entries: problem


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
    template = jax.eval_shape(lambda: _template(problem, len(lineages)))
    if found := checkpoints.restore(place, template):
        first, descent = found[0] + 1, found[1]
    elif dense is not None:
        first, descent = 1, _trained(lineages, params=dense[0], stats=dense[1])
    elif rewound is not None:
        descent = _undescended(params=rewound[0], stats=rewound[1])
    rows.keep_metrics(folder, lambda row: row["phase"] != ROWS or row["chunk"] < first)
    phases = [f"level-{level:02d}" for level in range(plan.levels + 1)]
    for level in range(first, len(phases)):
        if descent is None:
            entries = [_dense(problem, line) for line in lineages]
            keep_at, last = tuple(rewinds), problem.steps
        else:
            keep_at, last = (), end
            entries = _level(session, plan, lineages, descent, level)
            for line, entry in zip(lineages, entries, strict=False):
                name = "-".join(f"{key}{value}" for key, value in line.name.items())
                how = plan.going(line)
                length = how.end - how.start
                step = how.start if how.rewound else plan.dense_steps + (level - 1) * length
                trained_masks.save_entry(folder, problem, entry, step, f"level{level:02d}-{name}")
        again = session._replace(problem=plan.retrain(problem, entries))
        ends, made = train_entries(again, phases[level], entries, keep_at=keep_at, end=last)
        if look is not None:
            made = [row | more for row, more in zip(made, look(entries, ends), strict=True)]
        begun = runs.stack([entry.start.params for entry in entries[: len(lineages)]])
        descent = _descent(ends, begun, descent)
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


def _dense(problem: Problem, line: Lineage) -> Entry:
    seed = line.seed
    mask = masks.ones(seed.params)
    name = {"method": "dense", "density": 1.0, **line.name, "level": 0, "copy": 0, "order": 0}
    return Entry(name, Start(training_key(seed), line.hyper, seed.params, seed.stats, mask))


def _level(
    session: Session,
    plan: LevelPlan,
    lineages: Sequence[Lineage],
    descent: Descent,
    level: int,
) -> list[Entry]:
    """A level's entries: first the lineages' tickets, then their controls and other orders."""
    problem = session.problem
    with_copies = level and (level % plan.copies_every == 0 or level == plan.levels)
    copies = {"ticket": 1, **(plan.copies if with_copies else {})}
    if level in plan.control_levels:
        copies |= {name: 1 for name in CONTROLS if not copies.get(name)}
    tickets: list[Entry] = []
    others: list[Entry] = []
    for i, line in enumerate(lineages):
        mine: Descent = runs.take(descent, i)
        how = plan.going(line)
        mask = plan.prune(line, mine, level, session.data) if level else mine.mask
        density = round(float(masks.density(mask, problem.prunable)), 6)
        given = ControlInputs(
            problem.recipe.model,
            problem.prunable,
            params=mine.rewound if how.rewound else mine.params,
            stats=mine.rewound_stats if how.rewound else mine.stats,
            mask=mask,
        )
        for method in CONTROLS:
            for copy, order in itertools.product(range(copies.get(method, 0)), range(plan.orders)):
                draw = stream(line.seed.number, "treatment", level, method, copy)
                again = order or (level if not how.rewound and how.start == 0 else 0)
                seen = training_key(line.seed, again)
                treatment = line.ones if method == "ticket" else CONTROLS[method]
                treated = apply_control(treatment, draw, given)
                fill = line.zeros(mine.begun, mine.params) if line.zeros else None
                start = Start(
                    key=seen,
                    hyper=line.hyper,
                    params=treated.params,
                    stats=treated.stats,
                    mask=treated.mask,
                    step=how.start,
                    fill=fill,
                )
                word = method if level else "dense"
                name = {"method": word, "density": density, **line.name, "level": level}
                entry = Entry({**name, "copy": copy, "order": order}, start)
                (others if order or method != "ticket" else tickets).append(entry)
    return tickets + others


def _descent(ends: Any, begun: Params, before: Descent | None) -> Descent:
    """The state after a level. Its first rows are the tickets (or the dense nets)."""
    lines = jax.tree.leaves(begun)[0].shape[0]
    state, kept = runs.take((ends.state, ends.kept), np.arange(lines))
    if before is not None:
        rewound, rewound_stats = before.rewound, before.rewound_stats
    else:
        rewound, rewound_stats = jax.tree.map(lambda leaf: leaf[:, 0], kept)
    return Descent(
        mask=state.mask,
        begun=begun,
        params=state.params,
        stats=state.stats,
        rewound=rewound,
        rewound_stats=rewound_stats,
    )


def _undescended(params: Params, stats: Stats) -> Descent:
    """The state before level 0: nothing is pruned, and all weights are those at the rewind step."""
    return Descent(masks.ones(params), params, params, stats, params, stats)


def _trained(lineages: Sequence[Lineage], params: Params, stats: Stats) -> Descent:
    first, first_stats = runs.stack([(line.seed.params, line.seed.stats) for line in lineages])
    return Descent(
        mask=masks.ones(params),
        begun=first,
        params=params,
        stats=stats,
        rewound=first,
        rewound_stats=first_stats,
    )


def _template(problem: Problem, lines: int) -> Descent:
    params, stats = runs.stack([problem.recipe.model.init(jax.random.key(0))] * lines)
    return _undescended(params, stats)


def lineages_of(
    seeds: Sequence[Seed], hypers: Sequence[tuple[float, int]], rewind: int
) -> list[Lineage]:
    """A lineage for each seed and each learning rate with its warm-up."""

    def name(seed: Seed, rate: float, warmup: int) -> dict[str, Any]:
        tried = {"rate": rate, "warmup": warmup} if len(hypers) > 1 else {}
        return {"seed": seed.number, **tried}

    return [
        Lineage(seed, Hyper(jnp.float32(rate), jnp.int32(warmup)), name(seed, rate, warmup), rewind)
        for rate, warmup in hypers
        for seed in seeds
    ]


def rewound_nets(session: Session, rewinds: Sequence[int]) -> tuple[Params, Stats]:
    """The dense nets' parameters and statistics at the rewind steps, stacked like the lineages."""
    seeds = session.seeds
    if max(rewinds) == 0:
        return runs.stack([(one.params, one.stats) for one in seeds])
    dense = [
        Entry(
            {"method": "dense", "seed": one.number},
            Start(
                key=training_key(one),
                hyper=session.problem.hyper,
                params=one.params,
                stats=one.stats,
                mask=masks.ones(one.params),
            ),
        )
        for one in seeds
    ]
    kept = train_entries(
        session, "to the rewind points", dense, keep_at=tuple(rewinds), end=max(rewinds)
    )[0].kept
    return jax.tree.map(lambda leaf: jnp.concatenate(jnp.moveaxis(leaf, 1, 0)), kept)
