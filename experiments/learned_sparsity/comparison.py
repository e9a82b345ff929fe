"""Trains all runs of a method in one batch; each result is kept as a ticket. Resumable."""

from collections.abc import Sequence

from experiments.harness import memory, memory_batches
from experiments.harness.chunked_run import seconds
from experiments.harness.dense_store import Dense
from experiments.harness.problem import Problem, shorter
from experiments.harness.rows import Row
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, save_entry
from experiments.harness.training_runs import Start, accuracies, train_all
from experiments.harness.training_settings import TrainSettings
from experiments.learned_sparsity import iterative, ways
from experiments.learned_sparsity.counts import counted, fields, place_of
from experiments.learned_sparsity.methods import CONTROLS, DENSE, LEARNED
from experiments.learned_sparsity.settings import (
    LearnSettings,
    densities_of,
    gate_rate_of,
    is_iterative,
    is_warm,
    levels_of,
)
from experiments.learned_sparsity.ways import Job, Way
from jaxtickets import masks, nets, runs
from jaxtickets.io.errors import UserError
from jaxtickets.runs import Axis

LEADING = (
    *("method", "strength", "asked", "seed", "density", "factor"),
    *("trained_accuracy", "validation_accuracy"),
)
"""The first columns of a summary."""


def way_of(
    name: str, settings: LearnSettings, train: TrainSettings, problem: Problem, axis: Axis
) -> Way:
    """The way of a method.

    Raises:
      UserError: the net lacks what the method needs, or a density is out of reach.
    """
    try:
        if name in CONTROLS:
            return ways.control(
                name, CONTROLS[name], densities_of(settings), problem, settings.floor
            )
        own = LEARNED[name].facts.has_threshold and not settings.density
        return ways.learned(
            name,
            LEARNED[name],
            (None,) if own else densities_of(settings),
            problem,
            axis,
            train,
            floor=settings.floor,
            gate_rate=gate_rate_of(settings),
        )
    except ValueError as error:
        message = f"--methods={name} with {nets.name_of(problem.net)}: {error}"
        raise UserError(message) from error


def check(
    settings: LearnSettings, train: TrainSettings, problem: Problem, axis: Axis, seeds: int
) -> None:
    """Raises UserError if a training can't be done, before any work."""
    if train.penalty:
        raise UserError(f"--penalty={train.penalty}: name it in --methods instead")
    size = memory.training(problem.param_shapes)
    for name in settings.methods:
        number = len(levels_of(name, settings)) * seeds
        memory.check_memory(f"--methods={name}", number, size, "trainings")
        most = way_of(name, settings, train, problem, axis).most
        for strength, _ in levels_of(name, settings):
            if strength is not None and strength > most:
                raise UserError(f"--strengths={strength:g}: {name} takes at most {most:g}")


def trainings(
    name: str, settings: LearnSettings, train: TrainSettings, problem: Problem, seeds: int
) -> float:
    """The trainings of a method, with those of what is left, in whole trainings of a net."""
    again = 0.0
    if settings.retrain_epochs:
        smaller = shorter(problem, train, settings.retrain_epochs, settings.retrain_rate)
        again = smaller.steps / problem.steps
    results = 1 if name in CONTROLS else max(1, len(settings.density))
    number = len(levels_of(name, settings))
    before = len(iterative.levels_to(densities_of(settings))) - number if is_iterative(name) else 0
    return seeds * (before + number * (1 + results * again))


def train_method(
    session: Session, name: str, settings: LearnSettings, train: TrainSettings, dense: Dense
) -> list[Row]:
    """Trains a method at all its levels and seeds in one batch; a summary row of each result.

    Each result is the ticket `NAME-LEVEL-seedN` in the run's folder: its weights after training,
    and the mask over them.
    """
    folder, axis = session.folder, session.axis
    if is_iterative(name):
        planned = densities_of(settings)
        return iterative.prune_and_rewind(session, name, planned, settings.floor, dense)
    way = way_of(name, settings, train, session.problem, axis)
    seeds = [_started(one, i, dense, is_warm(name)) for i, one in enumerate(session.seeds)]
    jobs = [
        Job(strength, asked, seed)
        for strength, asked in levels_of(name, settings)
        for seed in seeds
    ]
    copies = (seeds[0].params,) * 2  # the weights, and a gate's parameters
    made, missing = memory_batches.batches_left(folder, f"train-{name}", axis, jobs, copies)
    for part, mine in missing:
        done = _train(session, part, name, way, mine)
        memory_batches.finish(folder, part, done)
        made += done
    return [row for job in made for row in job["results"]]


def _started(one: Seed, at: int, dense: Dense, warm: bool) -> Seed:
    """The seed with the weights that a method starts from."""
    if not warm:
        return one
    params, stats = runs.take((dense.params, dense.stats), at)
    return one._replace(params=params, stats=stats)


def _train(
    session: Session, part: str, name: str, way: Way, jobs: Sequence[Job]
) -> list[dict[str, list[Row]]]:
    """For each job the rows of its results, one for each density of the way."""
    folder, problem, axis = session.folder, session.problem, session.axis
    names = [fields(name, job.strength, job.asked, job.seed.number) for job in jobs]
    trained = session._replace(problem=way.problem)
    state = train_all(trained, part, way.start(jobs), names, end=problem.steps).state
    spent = round(seconds(folder, part) / len(jobs), 3)
    found: list[list[Row]] = [[] for _ in jobs]
    for asked, end in way.ends.items():
        mask, params, stats = runs.over_runs(end, axis, state)
        left = masks.apply(mask, params)
        test, validation = (
            accuracies(session, left, stats, part) for part in ("test", "validation")
        )
        for i, job in enumerate(jobs):
            level = job.asked if asked is None else asked
            named = fields(name, job.strength, level, job.seed.number)
            ended = runs.take((params, stats, mask), i)
            entry = Entry(named, Start(training_key(job.seed), problem.hyper, *ended))
            row = counted(problem, entry) | {
                "trained_accuracy": round(float(test[i]), 6),
                "validation_accuracy": round(float(validation[i]), 6),
                "cost": round(way.cost, 4),
                "seconds": spent,
                "ticket": place_of(named),
            }
            kept = Entry({**named, "density": row["density"]}, entry.start)
            save_entry(folder, problem, kept, problem.steps, row["ticket"])
            found[i].append(row)
    return [{"results": results} for results in found]


def dense_rows(session: Session, dense: Dense) -> list[Row]:
    """A summary row of each dense net."""
    problem, made = session.problem, []
    for i, (one, learnt) in enumerate(zip(session.seeds, dense.summary, strict=True)):
        params, stats = runs.take((dense.params, dense.stats), i)
        name = {"method": DENSE, "strength": None, "asked": None, "seed": one.number}
        start = Start(training_key(one), problem.hyper, params, stats, masks.ones(params))
        taken = ("trained_accuracy", "validation_accuracy", "seconds")
        row = counted(problem, Entry(name, start)) | {key: learnt[key] for key in taken}
        made.append(row | {"cost": 1.0})
    return made
