"""Trains nets by methods of dynamic sparse training: one batch of densities and seeds a method."""

from collections.abc import Sequence
from typing import Any

from experiments.harness import moving_trainings, trained_masks
from experiments.harness.moving_masks import SparseHyper
from experiments.harness.moving_trainings import keeps_counts, skips_zeros
from experiments.harness.named_parts import takes
from experiments.harness.problem import Problem
from experiments.harness.rows import read_metrics
from experiments.harness.seeds import Seed, mask_key, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, start_of, train_all
from experiments.harness.training_settings import TrainSettings
from experiments.sparse_training.costs import costs
from experiments.sparse_training.plans import (
    DynamicSettings,
    Named,
    planned,
    steps_between,
)
from jaxtickets import masks, runs
from jaxtickets.dynamic.methods import METHODS
from jaxtickets.keys import stream
from jaxtickets.search.energies import rescale
from jaxtickets.types import Array, TrainState


def train(
    session: Session,
    one: Named,
    densities: Sequence[float],
    settings: DynamicSettings,
    train: TrainSettings,
) -> tuple[list[dict[str, Any]], list[Entry]]:
    """Trains all densities and seeds by a method.

    The metrics rows of the phase `train-NAME` hold, beside those of a training, for each evaluation
    `kept/LEAF`, `explored`, the share of the prunable weights that were ever kept, and `grown`, how
    many were grown so far. Where zeros are skipped in a fixed number of weights, each density is a
    phase, `train-NAME-DENSITY`, since the sizes of its products are part of the program.

    Returns:
      A summary row of each run, and its ticket: the last mask over the seed's first weights.
    """
    if one.method is None:
        return _train(session, f"train-{one.name}", one, (1.0,), settings, train)
    if settings.execution == "dense" or not (skips_zeros(one.method) and keeps_counts(one.method)):
        return _train(session, f"train-{one.name}", one, densities, settings, train)
    parts = [
        _train(session, f"train-{one.name}-{density:g}", one, (density,), settings, train)
        for density in densities
    ]
    return [row for rows, _ in parts for row in rows], [e for _, found in parts for e in found]


def _train(
    session: Session,
    phase: str,
    one: Named,
    densities: Sequence[float],
    settings: DynamicSettings,
    train: TrainSettings,
) -> tuple[list[dict[str, Any]], list[Entry]]:
    problem = session.problem
    every = steps_between(settings, problem)
    method = one.method or METHODS["static"]

    def record(state: TrainState) -> dict[str, Array]:
        kept = masks.counts(state.mask, problem.prunable)
        return {
            **{f"kept/{path}": count for path, count in kept.items()},
            "explored": masks.density(state.opt_state.ever, problem.prunable),
            "grown": state.opt_state.grown,
        }

    names, starts = [], []
    for density in densities:
        for seed in session.seeds:
            names.append({"method": one.name, "density": density, "seed": seed.number})
            starts.append(_start(one, density, settings, problem, seed))
    begun = [masks.counts(start.mask, problem.prunable) for start in starts]
    sparse = settings.execution == "sparse" and one.method is not None and skips_zeros(method)
    moving = moving_trainings.moved(
        problem,
        method,
        one.inner,
        train,
        every=every,
        floor=settings.floor,
        alpha=settings.alpha,
        packed=starts[0].mask if sparse else None,
    )
    changing = session._replace(problem=moving.with_recipe(record=record))
    ends = train_all(changing, phase, runs.stack(starts), names, end=problem.steps)
    entries = [Entry(name, start) for name, start in zip(names, starts, strict=True)]
    ended = trained_masks.ended_rows(session, phase, entries, ends.state)
    summary, tickets = [], []
    rows = _passed(session, phase)
    passed = [rows[tuple(fields.values())] for fields in names]
    for i, fields in enumerate(names):
        mask = runs.take(ends.state.mask, i)
        seed = next(seed for seed in session.seeds if seed.number == fields["seed"])
        start = start_of(problem, seed, mask, params=starts[i].params)
        ticket = Entry({**fields, "check": "rewound"}, start)
        tickets.append(ticket)
        explored = round(float(passed[i][-1]["explored"]), 6)
        cost = costs(one, problem, begun[i], passed[i], every)
        summary.append({**ended[i], "check": "", "explored": explored, **cost})
    return summary, tickets


def _start(
    one: Named, density: float, settings: DynamicSettings, problem: Problem, seed: Seed
) -> Start:
    first, moves = planned(one, density, settings, problem)
    mask = masks.ones(seed.params)
    if first is not None:
        mask = masks.random(mask_key(seed, "random", density), seed.params, problem.prunable, first)
    hyper = SparseHyper(
        rate=problem.hyper.rate,
        warmup=problem.hyper.warmup,
        key=stream(seed.number, "moving_mask", one.name, density, 0),
        moves=moves,
        signs=seed.params if one.method and "signs" in takes(one.method.make) else (),
    )
    params = rescale(mask, seed.params, problem.prunable) if settings.rescale else seed.params
    return Start(training_key(seed), hyper, params, seed.stats, mask, seed.step)


def _passed(session: Session, phase: str) -> dict[tuple, list[dict[str, Any]]]:
    """(method, density, seed) -> the metrics rows of the run's evaluations."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in read_metrics(session.folder):
        if row["phase"] == phase:
            found.setdefault((row["method"], row["density"], row["seed"]), []).append(row)
    return found
