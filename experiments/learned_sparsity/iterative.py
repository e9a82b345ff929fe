"""Iterative magnitude pruning: all densities are levels of one descent from the dense nets."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.harness import levels
from experiments.harness.dense_store import Dense
from experiments.harness.lineages import Descent, LevelPlan, Lineage, lineages_of
from experiments.harness.problem import Problem
from experiments.harness.rows import Row
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, save_entry
from experiments.learned_sparsity.counts import counted, fields, place_of
from jaxtickets import allocation, masks, runs
from jaxtickets.recipes import imp, iterative_pruning
from jaxtickets.training import Watched
from jaxtickets.types import Dataset, Mask


def levels_to(densities: Sequence[float]) -> tuple[float, ...]:
    """The density of each level: those asked for, and between them as few others as are needed.

    A level keeps half or more of the weights that the one before kept, and levels between two
    densities keep equal shares.

    Args:
      densities: those asked for, in any order.
    """
    found: list[float] = []
    for before, after in itertools.pairwise([1.0, *sorted(densities, reverse=True)]):
        steps = math.ceil(math.log2(before / after) - 1e-9)
        found += [before * (after / before) ** (i / steps) for i in range(1, steps)] + [after]
    return tuple(found)


def prune_and_rewind(
    session: Session, method: str, densities: Sequence[float], floor: int, dense: Dense
) -> list[Row]:
    """A summary row of each density and seed, see `comparison.train_method`. Resumable.

    A level keeps the largest of the weights that the level before has trained, in the whole net,
    and trains them again from their initial values, for as long as the dense net was trained
    (Frankle and Carbin, 2019). The cost is that of all trainings up to the level.

    Args:
      session: the net, its training and the run's folder.
      method: its name in rows.
      densities: those asked for.
      floor: the minimum number of weights that a layer keeps.
      dense: the trained dense nets.
    """
    problem = session.problem
    planned = levels_to(densities)
    asked = {level: density for level, density in enumerate(planned, 1) if density in densities}

    def keep(entries: Sequence[Entry], ends: Watched) -> list[dict[str, Any]]:
        return [
            kept(session, method, asked, entry, runs.take(ends, i))
            for i, entry in enumerate(entries)
        ]

    lines = lineages_of(
        session.seeds, [(float(problem.hyper.rate), int(problem.hyper.warmup))], rewind=0
    )
    trained = (dense.params, dense.stats)
    plan = plan_of(problem, planned, floor)
    made = levels.descend(session, plan, lines, lambda _: None, look=keep, dense=trained)
    found = [row for row in made if row["level"] in asked]
    for row in found:
        before = [r for r in made if r["seed"] == row["seed"] and r["level"] <= row["level"]]
        row["seconds"] = round(sum(r["seconds"] for r in before), 3)
    return found


def plan_of(problem: Problem, densities: Sequence[float], floor: int) -> LevelPlan:
    """The plan of a descent whose levels keep these densities.

    Raises:
      ValueError: a density is out of reach of the floors.
    """
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    counts = [allocation.global_(shapes, density, floor) for density in densities]

    def prune(line: Lineage, mine: Descent, level: int, data: Dataset) -> Mask:
        del line, data
        sizes = jax.tree.map(jnp.abs, mine.params)
        return iterative_pruning.narrow(
            sizes, mine.mask, problem.prunable, counts[level - 1], floor
        )

    def going(line: Lineage) -> imp.LevelTraining:
        return imp.level_training("weights", line.rewind, problem.steps)

    return LevelPlan(len(counts), prune, going, problem.steps, copies={})


def kept(
    session: Session, method: str, asked: dict[int, float], entry: Entry, end: Watched
) -> dict[str, Any]:
    """Keeps the ticket of a level that was asked for; the columns of its row."""
    level = entry.name["level"]
    if level not in asked:
        return {}
    named = fields(method, None, asked[level], entry.name["seed"])
    start = entry.start._replace(params=end.state.params, stats=end.state.stats)
    row = counted(session.problem, Entry(named, start))
    done = Entry({**named, "density": row["density"]}, start)
    save_entry(session.folder, session.problem, done, session.problem.steps, place_of(named))
    return {**row, "cost": 1.0 + level, "ticket": place_of(named)}
