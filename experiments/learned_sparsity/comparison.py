"""Trains all runs of a method in one batch, and keeps each result as a ticket. Resumable."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.harness import cached_trainings, memory, memory_batches, trained_masks
from experiments.harness.chunked_run import seconds
from experiments.harness.dense_store import Dense
from experiments.harness.problem import Problem, optimizer_of
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_UNITS, option
from experiments.harness.trained_masks import Entry, save_entry
from experiments.harness.training_runs import Start, accuracies, train_all
from experiments.harness.training_settings import TrainSettings
from experiments.learned_sparsity import ways
from experiments.learned_sparsity.methods import CONTROLS, DENSE, LEARNED, NAMES, USUAL
from experiments.learned_sparsity.ways import Job, Way
from jaxtickets import masks, nets, runs
from jaxtickets.io import tickets
from jaxtickets.io.errors import UserError
from jaxtickets.optimizers import Hyper
from jaxtickets.runs import Axis
from jaxtickets.types import Ticket

Row = dict[str, Any]
LEADING = (
    *("method", "strength", "asked", "seed", "density", "factor"),
    *("trained_accuracy", "validation_accuracy"),
)
"""The first columns of a summary."""
AGAIN = 2
"""The order of the data in which what is left is retrained; 0 and 1 are those of the trainings."""


@dataclasses.dataclass(frozen=True)
class LearnSettings:
    """The methods, and how strongly they prune. Each field is also a flag of the same name."""

    methods: tuple = option(USUAL, "methods beside the dense net", NAMES)
    strengths: tuple = option(
        (),
        "strengths of methods that learn their density; empty: each method's own",
        least=0,
        most=MOST_FACTOR,
    )
    density: tuple = option(
        (),
        "kept fractions of the weights, for all methods; empty: what each method's own threshold "
        "keeps",
        above=0,
        below=1,
    )
    control_density: tuple = option(
        (0.1, 0.05, 0.02, 0.01),
        "kept fractions of methods that learn none, without --density",
        above=0,
        below=1,
    )
    floor: int = option(
        1, "minimum number of weights that a layer keeps at a density", least=0, most=MOST_UNITS
    )
    gate_rate: float = option(
        0.0,
        "learning rate of gates' parameters without an optimiser of their own, as a multiple of "
        "--learning_rate; 0: each method's own multiple",
        least=0,
        most=MOST_FACTOR,
    )
    retrain_epochs: int = option(
        0, "epochs in which what is left is trained alone", least=0, most=MOST_EPOCHS
    )
    retrain_rate: float = option(
        0.1,
        "learning rate of this training, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    repeats: int = option(
        100, "number of timed calls; a net's latency is their median", least=1, most=10**6
    )


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
            gate_rate=settings.gate_rate,
        )
    except ValueError as error:
        message = f"--methods={name} with {nets.name_of(problem.net)}: {error}"
        raise UserError(message) from error


def densities_of(settings: LearnSettings) -> tuple[float, ...]:
    """The densities at which a method is trained that has no threshold of its own."""
    return tuple(settings.density or settings.control_density)


def levels_of(name: str, settings: LearnSettings) -> list[tuple[float | None, float | None]]:
    """The strengths of a learned method, or the densities of a control: `(strength, density)`."""
    if name in CONTROLS:
        return [(None, density) for density in densities_of(settings)]
    return [(strength, None) for strength in settings.strengths or LEARNED[name].facts.strengths]


def is_warm(name: str) -> bool:
    """Whether a method starts from trained dense nets."""
    return CONTROLS[name].warm if name in CONTROLS else LEARNED[name].facts.warm


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
        for strength, _ in levels_of(name, settings):
            most = LEARNED[name].facts.most if name in LEARNED else math.inf
            if strength is not None and strength > most:
                raise UserError(f"--strengths={strength:g}: {name} takes at most {most:g}")
        way_of(name, settings, train, problem, axis)


def train_method(
    session: Session, name: str, settings: LearnSettings, train: TrainSettings, dense: Dense
) -> list[Row]:
    """Trains a method at all its levels and seeds in one batch; a summary row of each result.

    Each result is the ticket `NAME-LEVEL-seedN` in the run's folder: its weights after training,
    and the mask over them.
    """
    folder, axis = session.folder, session.axis
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
    folder, problem, axis, data = session.folder, session.problem, session.axis, session.data
    names = [fields(name, job, job.asked) for job in jobs]
    trained = session._replace(problem=way.problem)
    state = train_all(trained, part, way.start(jobs), names, end=problem.steps).state
    spent = round(seconds(folder, part) / len(jobs), 3)
    found: list[list[Row]] = [[] for _ in jobs]
    for asked, end in way.ends.items():
        mask, params, stats = runs.over_runs(end, axis, state)
        left = masks.apply(mask, params)
        test, validation = (
            accuracies(problem, axis, left, stats, split) for split in (data.test, data.validation)
        )
        for i, job in enumerate(jobs):
            named = fields(name, job, job.asked if asked is None else asked)
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


def fields(name: str, job: Job, asked: float | None) -> Row:
    """The fields that name a result in rows."""
    return {"method": name, "strength": job.strength, "asked": asked, "seed": job.seed.number}


def place_of(named: Row) -> str:
    """The folder of a result's ticket, under `tickets/`."""
    level = "" if named["strength"] is None else f"-strength{named['strength']:g}"
    level += "" if named["asked"] is None else f"-density{named['asked']:g}"
    return f"{named['method']}{level}-seed{named['seed']}"


def counted(problem: Problem, entry: Entry) -> Row:
    """The fields of an entry's name, and what its mask leaves.

    `density` is the share of the prunable weights that is kept, `factor` its inverse (infinite if
    nothing is kept), `multiply_adds` those of an image with zeros skipped, and `left/GROUP` the
    units on a path of kept weights, where the net's wiring is known.
    """
    (row,) = trained_masks.counted_rows(problem, [entry])
    sizes = masks.shapes(problem.param_shapes, problem.prunable)
    total = masks.size(problem.param_shapes, problem.prunable)
    kept = {path: row[f"kept/{path}"] for path in problem.prunable}
    adds = nets.multiply_adds(problem.net, problem.image_shape)
    skipped = sum(
        count * (1 - kept[path] / math.prod(sizes[path])) if path in kept else 0
        for path, count in adds.items()
    )
    units = {
        f"left/{group.name}": group.size - row[f"dead_units/{group.name}"]
        for group in problem.wiring
    }
    if problem.wiring:
        first = sizes.get(f"{problem.wiring[0].producers[0]}/kernel", ())
        if len(first) == 2:  # the pixels of a dense layer, not the channels of a convolution
            units = {"left/inputs": first[0] - row["dead_inputs"]} | units
    ones = sum(kept.values())
    return row | {
        "density": round(ones / total, 8),
        "factor": round(total / ones, 3) if ones else math.inf,
        "multiply_adds": round(sum(adds.values()) - skipped),
        "multiply_adds_left": round(1 - skipped / sum(adds.values()), 8),
        **units,
    }


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


def retrain(
    session: Session, settings: LearnSettings, train: TrainSettings, rows: Sequence[Row]
) -> list[Row]:
    """Trains what is left of each net alone; the rows with the accuracies and the cost of that.

    The masks don't change, the loss has no penalty, and the rate follows the same schedule.
    """
    problem = session.problem
    steps = problem.epoch_steps * settings.retrain_epochs
    rate = problem.hyper.rate * settings.retrain_rate
    smaller = problem.with_recipe(
        optimizer=optimizer_of(train, steps), every=problem.epoch_steps, evaluations_per_test=0
    )
    smaller = smaller._replace(hyper=Hyper(rate, jnp.int32(0)), steps=steps)
    seeds = {one.number: one for one in session.seeds}
    entries = {}
    for row in rows:
        ticket = load(session, row["ticket"])
        start = Start(
            training_key(seeds[row["seed"]], AGAIN),
            smaller.hyper,
            ticket.params,
            ticket.stats,
            ticket.mask,
        )
        name = {key: row[key] for key in ("method", "strength", "asked", "seed", "density")}
        entries[f"{row['ticket']}-retrained"] = Entry(name, start)
    done = cached_trainings.train(
        session._replace(problem=smaller), session.folder, "retrain", entries
    )
    return [
        row
        | {
            "retrained_accuracy": again["trained_accuracy"],
            "retrained_validation_accuracy": again["validation_accuracy"],
            "cost": round(row["cost"] + steps / problem.steps, 4),
            "seconds": round(row["seconds"] + again["seconds"], 3),
        }
        for row, again in zip(rows, done.values(), strict=True)
    ]


def load(session: Session, place: str) -> Ticket:
    """The ticket of a summary row."""
    ticket, _ = tickets.load_ticket(session.folder / "tickets" / place)
    return ticket._replace(rewind_step=np.int32(0))
