"""Trains nets by methods of dynamic sparse training: one batch of densities and seeds a method."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments.harness import memory, trained_masks
from experiments.harness.chunked_run import seconds
from experiments.harness.named_parts import make_part, takes
from experiments.harness.problem import Problem, learning_rate_of
from experiments.harness.rows import read_metrics
from experiments.harness.seeds import Seed, mask_key, training_key
from experiments.harness.session import Session
from experiments.harness.settings import MOST_STEPS, MOST_UNITS, choose, option
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, accuracies, start_of, train_all
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, masks, nets, runs
from jaxtickets.dynamic import INNERS, METHODS, Method
from jaxtickets.dynamic.history import with_history
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.training import Moves
from jaxtickets.types import Array, Keep, Key, Mask, Params, PyTree, TrainState

DENSE = "dense"
"""The control whose mask keeps everything."""
JOIN = "+"
"""Between a method and what makes its inner optimiser: `rigl+ham`."""
ALLOCATIONS = ("erk", "uniform")


@dataclasses.dataclass(frozen=True)
class DynamicSettings:
    """How masks change."""

    move_every: int = option(
        0, "training steps between two moves; 0: those of an epoch", least=0, most=MOST_STEPS
    )
    allocation: str = option("erk", "counts of each layer, of methods that keep them", ALLOCATIONS)
    begin: float = option(
        0.5, "first density of granet, or --density if that is higher", above=0, most=1
    )
    alpha: float = option(1.0, "strength of the hyperbolic step of +ham", least=0, most=1e6)
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=MOST_UNITS)


class Named(NamedTuple):
    """A method with its inner optimiser.

    Attributes:
      name: as in `--methods`, such as `rigl+ham`.
      method: its facts; None for the dense control.
      inner: a name of `dynamic.INNERS`; empty for the plain optimiser.
    """

    name: str
    method: Method | None
    inner: str


class SparseHyper(NamedTuple):
    """The hyperparameters that may differ between the runs of a batch.

    Attributes:
      rate, warmup: see `optimizers.Hyper`.
      key: for the method's random choices.
      moves: the plan of the moves; `()` if there is none.
      signs: the first parameters, if the method asks for them; else `()`.
    """

    rate: Array
    warmup: Array
    key: Key
    moves: PyTree = ()
    signs: PyTree = ()


def find(name: str) -> Named:
    """The method that a name stands for.

    Raises:
      UserError: there is no such method.
    """
    method, _, inner = name.partition(JOIN)
    choose("method", method, (DENSE, *METHODS))
    if inner:
        choose("method", inner, tuple(INNERS))
    return Named(name, None if method == DENSE else METHODS[method], inner)


def steps_between(settings: DynamicSettings, problem: Problem) -> int:
    """The training steps between two moves.

    Raises:
      UserError: an evaluation falls between two moves, or the training is shorter.
    """
    every = settings.move_every or problem.recipe.every
    if problem.recipe.every % every:
        raise UserError(
            f"--move_every={every}: must divide {problem.recipe.every}, the steps between "
            "evaluations (--look_every)"
        )
    if problem.steps < 2 * every:
        raise UserError(
            f"--move_every={every}: a training of {problem.steps} steps is too short for a move"
        )
    return every


def check(
    methods: Sequence[Named],
    densities: Sequence[float],
    settings: DynamicSettings,
    problem: Problem,
    seeds: int,
) -> None:
    """Raises UserError if a training can't be done, before any work."""
    steps_between(settings, problem)
    number = len(densities) * seeds
    size = memory.training(problem.param_shapes)
    memory.check_memory(f"--density={','.join(map(str, densities))}", number, size, "trainings")
    for one in methods:
        for density in densities:
            try:
                _planned(one, density, settings, problem)
            except ValueError as error:
                raise UserError(f"{one.name} at density {density:g}: {error}") from error


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
    many were grown so far.

    Returns:
      A summary row of each run, and its ticket: the last mask over the seed's first weights.
    """
    problem = session.problem
    every, name = steps_between(settings, problem), f"train-{one.name}"
    rate = learning_rate_of(train, problem.steps)

    def sparsify(
        inner: optax.GradientTransformation, mask: Mask, fill: Params | None, hyper: SparseHyper
    ) -> optax.GradientTransformationExtraArgs:
        del fill
        known = {**hyper._asdict(), "prunable": problem.prunable, "rate": rate(hyper)}
        known |= {"alpha": settings.alpha}
        if one.inner:
            inner = make_part(INNERS[one.inner], known | {"inner": inner})
        known |= {"inner": inner, "mask": mask, "floor": settings.floor}
        known |= {"every": every, "steps": problem.steps, "fill": None}
        method = one.method or METHODS["static"]
        return with_history(make_part(method.make, known), problem.prunable)

    def record(state: TrainState) -> dict[str, Array]:
        kept = masks.counts(state.mask, problem.prunable)
        return {
            **{f"kept/{path}": count for path, count in kept.items()},
            "explored": masks.density(state.opt_state.ever, problem.prunable),
            "grown": state.opt_state.grown,
        }

    moves = one.method is not None and one.method.plan is not None
    batch = problem.recipe.batch_size
    changing = session._replace(
        problem=problem.with_recipe(
            sparsify=sparsify, record=record, moves=Moves(every, batch) if moves else None
        )
    )
    names, starts = [], []
    for density in (1.0,) if one.method is None else densities:
        for seed in session.seeds:
            names.append({"method": one.name, "density": density, "seed": seed.number})
            starts.append(_start(one, density, settings, problem, seed))
    begun = [masks.counts(start.mask, problem.prunable) for start in starts]
    ends = train_all(changing, name, runs.stack(starts), names, end=problem.steps)
    spent = round(seconds(session.folder, name) / len(names), 3)
    summary, tickets = [], []
    tested, validated = (
        accuracies(problem, session.axis, ends.state.params, ends.state.stats, split)
        for split in (session.data.test, session.data.validation)
    )
    rows = _passed(session, name)
    passed = [rows[tuple(fields.values())] for fields in names]
    for i, fields in enumerate(names):
        mask = runs.take(ends.state.mask, i)
        seed = next(seed for seed in session.seeds if seed.number == fields["seed"])
        ticket = Entry({**fields, "check": "rewound"}, start_of(problem, seed, mask))
        tickets.append(ticket)
        summary.append(
            {
                **trained_masks.counted_rows(problem, [ticket])[0],
                "check": "",
                "trained_accuracy": round(float(tested[i]), 6),
                "validation_accuracy": round(float(validated[i]), 6),
                "explored": round(float(passed[i][-1]["explored"]), 6),
                **_costs(one, problem, begun[i], passed[i], every),
                "seconds": spent,
            }
        )
    return summary, tickets


class _Planned(NamedTuple):
    """Attributes: `first`, the counts of the first mask's leaves, None for all weights; `moves`."""

    first: dict[str, int] | None
    moves: PyTree


def _planned(one: Named, density: float, settings: DynamicSettings, problem: Problem) -> _Planned:
    """The first mask's counts, and the plan of all moves but that at the end of the training.

    Raises:
      ValueError: the density is out of reach of the floors, or the plan isn't possible.
    """
    method, floor = one.method, settings.floor
    if method is None:
        return _Planned(None, ())
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    spread = allocation.ALLOCATIONS[settings.allocation]
    last = max(settings.begin, density) if method.begin == "between" else density
    first = None if method.begin == "dense" else spread(shapes, last, floor)
    if method.plan is None:
        return _Planned(first, ())
    end: Keep = first if method.counts == "leaf" else allocation.global_(shapes, density, floor)
    size = masks.size(problem.param_shapes, problem.prunable)
    begin: Keep = end if method.counts == "leaf" else size if first is None else sum(first.values())
    number = problem.steps // steps_between(settings, problem) - 1
    moves = method.plan(moves=number, begin=begin, end=end, floor=floor)
    return _Planned(first, jax.tree.map(np.asarray, moves))


def _start(
    one: Named, density: float, settings: DynamicSettings, problem: Problem, seed: Seed
) -> Start:
    first, moves = _planned(one, density, settings, problem)
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
    return Start(training_key(seed), hyper, seed.params, seed.stats, mask, seed.step)


def _passed(session: Session, phase: str) -> dict[tuple, list[dict[str, Any]]]:
    """(method, density, seed) -> the metrics rows of the run's evaluations."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in read_metrics(session.folder):
        if row["phase"] == phase:
            found.setdefault((row["method"], row["density"], row["seed"]), []).append(row)
    return found


def _costs(
    one: Named,
    problem: Problem,
    begun: Mapping[str, Array],
    passed: Sequence[dict[str, Any]],
    every: int,
) -> dict[str, float]:
    """What a run changed, and what it cost.

    Args:
      one: the method.
      problem: the net and its training.
      begun: the first mask's counts.
      passed: the metrics rows of the run.
      every: training steps between two moves.


    `churn` is the number of weights grown over the training, in masks of the last size.
    `sparse_cost` counts multiply-adds with zeros skipped, in dense trainings: a training step has a
    forward pass and two backward ones, all sparse but those of a dense gradient. `dense_cost` skips
    none, and exceeds 1 by the gradients of moves.
    """
    adds = nets.multiply_adds(problem.net, problem.image_shape)
    total, pruned = sum(adds.values()), [path for path in problem.prunable if path in adds]
    size = masks.shapes(problem.param_shapes, problem.prunable)
    share = {
        path: np.mean([int(begun[path]), *(row[f"kept/{path}"] for row in passed[:-1])])
        / np.prod(size[path])
        for path in pruned
    }
    sparse = 1 - sum(adds[path] * (1 - share[path]) for path in pruned) / total
    moves = problem.steps // every if one.method is not None and one.method.plan else 0
    dense_gradient = one.method.dense_gradient if one.method is not None else "never"
    steps, extra = 3 * problem.steps * sparse, 0.0
    if dense_gradient == "steps":
        steps = problem.steps * (2 * sparse + 1)
    if dense_gradient == "moves":
        extra = moves * (2 * sparse + 1)
    last = sum(passed[-1][f"kept/{path}"] for path in problem.prunable)
    return {
        "churn": round(passed[-1]["grown"] / last, 4),
        "sparse_cost": round((steps + extra) / (3 * problem.steps), 5),
        "dense_cost": round(1 + (moves / problem.steps if extra else 0), 5),
    }
