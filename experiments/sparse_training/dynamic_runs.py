"""Trains nets by methods of dynamic sparse training: one batch of densities and seeds a method."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import optax

from experiments.harness import trained_masks
from experiments.harness.chunked_run import seconds
from experiments.harness.named_parts import make_part, takes
from experiments.harness.problem import Problem, learning_rate_of
from experiments.harness.rows import read_metrics
from experiments.harness.seeds import Seed, mask_key, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start, accuracies, start_of, train_all
from experiments.harness.training_settings import TrainSettings
from experiments.sparse_training.costs import costs
from experiments.sparse_training.plans import DynamicSettings, Named, planned, steps_between
from jaxtickets import masks, runs
from jaxtickets.dynamic import INNERS, METHODS
from jaxtickets.dynamic.history import with_history
from jaxtickets.keys import stream
from jaxtickets.training import Moves
from jaxtickets.types import Array, Key, Mask, Params, PyTree, TrainState


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
                **costs(one, problem, begun[i], passed[i], every),
                "seconds": spent,
            }
        )
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
    return Start(training_key(seed), hyper, seed.params, seed.stats, mask, seed.step)


def _passed(session: Session, phase: str) -> dict[tuple, list[dict[str, Any]]]:
    """(method, density, seed) -> the metrics rows of the run's evaluations."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in read_metrics(session.folder):
        if row["phase"] == phase:
            found.setdefault((row["method"], row["density"], row["seed"]), []).append(row)
    return found
