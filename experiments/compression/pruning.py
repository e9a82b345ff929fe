"""Prunes the nets of all densities and seeds by a method; each result is a ticket. Resumable."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.compression.methods import CUTTERS, MOVERS, Cut, Cutter, Mover
from experiments.compression.settings import CompressSettings, keep_of, moving_problem
from experiments.harness import (
    cached_trainings,
    memory_batches,
    moving_masks,
    moving_trainings,
    packed_runs,
)
from experiments.harness.chunked_run import seconds
from experiments.harness.dense_store import Dense
from experiments.harness.moving_masks import SparseHyper
from experiments.harness.problem import Problem, shorter
from experiments.harness.rows import Row
from experiments.harness.seeds import Seed, evidence, mask_key, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, save_entry
from experiments.harness.training_runs import Start, steps_between_moves, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import masks, runs
from jaxtickets.io import tickets
from jaxtickets.keys import stream
from jaxtickets.recipes import iterative_pruning
from jaxtickets.types import Ticket


class Job(NamedTuple):
    """A net that is to be pruned.

    Attributes:
      density: the fraction of the prunable weights that is kept in the end.
      at: the index of its seed.
      seed: the seed, with its first weights.
    """

    density: float
    at: int
    seed: Seed


def prune(
    session: Session, name: str, settings: CompressSettings, train: TrainSettings, dense: Dense
) -> list[Row]:
    """The nets of all densities and seeds, pruned by a method.

    Returns:
      A row of each, with `stage`, `method`, `density`, `seed`, its `ticket` under `tickets/`, and
      `seconds`. The stage is `cut` for nets that are cut once and not retrained (yet), `pruned` for
      those that have trained since.
    """
    jobs = [
        Job(density, at, seed)
        for density in settings.density
        for at, seed in enumerate(session.seeds)
    ]
    if name in MOVERS:
        return _moved(session, name, MOVERS[name], jobs, settings, train)
    return _cut_and_retrained(session, name, CUTTERS[name], jobs, settings, train, dense)


def load(session: Session, place: str) -> Ticket:
    """The ticket of a row."""
    ticket, _ = tickets.load_ticket(session.folder / "tickets" / place)
    return ticket._replace(rewind_step=np.int32(0))


def save_ticket(session: Session, row: Row, ticket: Ticket) -> None:
    """Saves the ticket of a row."""
    problem, key = session.problem, jax.random.key(0)  # which is not part of a ticket
    start = Start(key, problem.hyper, ticket.params, ticket.stats, ticket.mask)
    save_entry(session.folder, problem, Entry(row, start), problem.steps, row["ticket"])


def named(stage: str, method: str, job: Job) -> Row:
    """The fields that name a net in rows."""
    return {"stage": stage, "method": method, "density": job.density, "seed": job.seed.number}


def place_of(method: str, job: Job) -> str:
    """The folder of a pruned net's ticket, under `tickets/`."""
    return f"{method}-density{job.density:g}-seed{job.seed.number}"


# --- trained nets --------------------------------------------------------------------------------


def _cut_and_retrained(
    session: Session,
    name: str,
    one: Cutter,
    jobs: Sequence[Job],
    settings: CompressSettings,
    train: TrainSettings,
    dense: Dense,
) -> list[Row]:
    rounds = settings.rounds if one.iterated else 1
    places, made = [""] * len(jobs), []
    spent = np.zeros(len(jobs))
    for number in range(rounds):
        cuts = _cut(session, name, one, jobs, places, (number, rounds), settings, dense)
        spent += [row["seconds"] for row in cuts]
        if rounds == 1:
            made += cuts
        if not settings.retrain_epochs:
            return made
        places = [f"{row['ticket']}-retrained" for row in cuts]
        spent += _retrain(session, name, jobs, cuts, (number, rounds), settings, train)
    return made + [
        named("pruned", name, job) | {"ticket": place, "seconds": round(total, 3)}
        for job, place, total in zip(jobs, places, spent.tolist(), strict=True)
    ]


def _cut(
    session: Session,
    name: str,
    one: Cutter,
    jobs: Sequence[Job],
    places: Sequence[str],
    turn: tuple[int, int],
    settings: CompressSettings,
    dense: Dense,
) -> list[Row]:
    """The rows of one round's cuts, of the dense nets if it is the first. The tickets are saved.

    Args:
      session, name, one, jobs, settings, dense: as in `prune`.
      places: the tickets of the round before.
      turn: the number of the round, and of all rounds.
    """
    problem, (number, rounds) = session.problem, turn
    phase = f"cut-{name}-{number}"
    found = cached_trainings.known(session.folder, phase)
    size = masks.size(problem.param_shapes, problem.prunable)
    studied: dict[int, tuple[Cut, float]] = {}
    for i, (job, place) in enumerate(zip(jobs, places, strict=True)):
        if i < len(found):
            continue
        if number or job.at not in studied:
            params, stats = runs.take((dense.params, dense.stats), job.at)
            mask = masks.ones(params)
            if number:
                params, stats, mask, _ = load(session, place)
            seen = evidence(problem, job.seed._replace(stats=stats), params, session.data)
            key = mask_key(job.seed, name, job.density if number else 1.0)
            started = time.monotonic()
            cut = one.study(key, seen._replace(mask=mask), problem.prunable, settings.floor)
            studied[job.at] = cut, time.monotonic() - started
        cut, study_seconds = studied[job.at]
        keep = keep_of(problem, job.density, settings.floor)
        started = time.monotonic()
        ticket = jax.block_until_ready(
            cut(int(iterative_pruning.schedule(size, keep, rounds)[number]))
        )
        taken = study_seconds + time.monotonic() - started
        row = named("cut", name, job) | {
            "ticket": f"{place_of(name, job)}-cut{number + 1}",
            "seconds": round(taken, 3),
        }
        save_ticket(session, row, ticket)
        found.append(row)
        cached_trainings.keep(session.folder, phase, found)
    return found


def _retrain(
    session: Session,
    name: str,
    jobs: Sequence[Job],
    cuts: Sequence[Row],
    turn: tuple[int, int],
    settings: CompressSettings,
    train: TrainSettings,
) -> list[float]:
    """Trains what a round has left; the seconds of each. The tickets are saved."""
    number, _ = turn
    smaller = shorter(session.problem, train, settings.retrain_epochs, settings.retrain_rate)
    smaller = packed_runs.executed(smaller, settings.execution)
    entries = {}
    for job, row in zip(jobs, cuts, strict=True):
        ticket = load(session, row["ticket"])
        key = training_key(job.seed, number + 1)
        start = Start(key, smaller.hyper, ticket.params, ticket.stats, ticket.mask)
        entries[f"{row['ticket']}-retrained"] = Entry(named("pruned", name, job), start)
    retrained = session._replace(problem=smaller)
    done = cached_trainings.train(retrained, session.folder, f"retrain-{name}-{number}", entries)
    return [row["seconds"] for row in done.values()]


# --- nets that are pruned while they train -------------------------------------------------------


def _moved(
    session: Session,
    name: str,
    one: Mover,
    jobs: Sequence[Job],
    settings: CompressSettings,
    train: TrainSettings,
) -> list[Row]:
    problem = moving_problem(session.problem, settings, train)
    every = steps_between_moves(0, problem)
    sparse = settings.execution == "sparse" and moving_trainings.skips_zeros(one.method)
    moving = moving_trainings.moved(
        problem,
        one.method,
        one.inner,
        train,
        every=every,
        floor=settings.floor,
        alpha=settings.alpha,
        packed=problem.param_shapes if sparse else None,
    )
    made, missing = memory_batches.batches_left(
        session.folder, f"train-{name}", session.axis, jobs, jobs[0].seed.params
    )
    for phase, mine in missing:
        starts = [_start(problem, name, one, job, settings, every) for job in mine]
        names = [named("pruned", name, job) for job in mine]
        there = session._replace(problem=moving)
        state = train_all(there, phase, runs.stack(starts), names, end=problem.steps).state
        spent = round(seconds(session.folder, phase) / len(mine), 3)
        done = []
        for i, job in enumerate(mine):
            params, stats, mask = runs.take((state.params, state.stats, state.mask), i)
            row = names[i] | {"ticket": place_of(name, job), "seconds": spent}
            save_ticket(session, row, Ticket(params, stats, mask, np.int32(0)))
            done.append(row)
        memory_batches.finish(session.folder, phase, done)
        made += done
    return made


def _start(
    problem: Problem, name: str, one: Mover, job: Job, settings: CompressSettings, every: int
) -> Start:
    first, moves = moving_masks.planned(
        one.method, job.density, problem, every, floor=settings.floor
    )
    mask = masks.ones(job.seed.params)
    if first is not None:
        key = mask_key(job.seed, "random", job.density)
        mask = masks.random(key, job.seed.params, problem.prunable, first)
    hyper = SparseHyper(
        rate=problem.hyper.rate,
        warmup=problem.hyper.warmup,
        key=stream(job.seed.number, "moving_mask", name, job.density, 0),
        moves=moves,
    )
    return Start(training_key(job.seed), hyper, job.seed.params, job.seed.stats, mask)
