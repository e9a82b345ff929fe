"""Lineages of tickets in iterative pruning: the plan of their levels, and what a level trains."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, start_of
from jaxtickets import masks, runs
from jaxtickets.keys import stream
from jaxtickets.optimizers import Hyper
from jaxtickets.recipes.imp import LevelTraining
from jaxtickets.recipes.mask_actions import Fill
from jaxtickets.recipes.ticket_controls import CONTROLS, Control, ControlInputs, apply_control
from jaxtickets.training import Watched
from jaxtickets.types import Dataset, Mask, Params, Stats


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


def dense_entries(problem: Problem, lineages: Sequence[Lineage]) -> list[Entry]:
    """The entries of level 0: the lineages' dense nets."""
    made = []
    for line in lineages:
        name = {"method": "dense", "density": 1.0, **line.name, "level": 0, "copy": 0, "order": 0}
        start = start_of(problem, line.seed, masks.ones(line.seed.params))
        made.append(Entry(name, start._replace(hyper=line.hyper)))
    return made


def level_entries(
    session: Session,
    plan: LevelPlan,
    lineages: Sequence[Lineage],
    descent: Descent,
    level: int,
) -> list[Entry]:
    """A level's entries: first the lineages' tickets, then their controls and other orders."""
    problem, copies = session.problem, _copies(plan, level)
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


def _copies(plan: LevelPlan, level: int) -> dict[str, int]:
    """Control, or `ticket` -> how many of it a lineage trains at a level."""
    with_copies = level and (level % plan.copies_every == 0 or level == plan.levels)
    copies = {"ticket": 1, **(plan.copies if with_copies else {})}
    if level in plan.control_levels:
        copies |= {name: 1 for name in CONTROLS if not copies.get(name)}
    return copies


def later_steps(plan: LevelPlan, lineages: Sequence[Lineage], level: int) -> int:
    """The training steps of all nets of the levels after this one."""
    nets = sum(sum(_copies(plan, i).values()) for i in range(level + 1, plan.levels + 1))
    trainings = map(plan.going, lineages)
    return nets * plan.orders * sum(training.end - training.start for training in trainings)


def next_descent(ends: Watched, begun: Params, before: Descent | None) -> Descent:
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


def unpruned(params: Params, stats: Stats, rewound: Params, rewound_stats: Stats) -> Descent:
    """The state of whole nets, whose trainings began with the weights at the rewind step."""
    return Descent(masks.ones(params), rewound, params, stats, rewound, rewound_stats)


def first_weights(lineages: Sequence[Lineage]) -> tuple[Params, Stats]:
    """The lineages' initial parameters and statistics, stacked."""
    weights: tuple[Params, Stats] = runs.stack(
        [(line.seed.params, line.seed.stats) for line in lineages]
    )
    return weights
