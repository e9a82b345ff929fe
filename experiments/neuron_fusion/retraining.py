"""Evaluates small nets after fusion, and trains them again. Resumable."""

from collections.abc import Sequence
from functools import partial

import jax

from experiments.harness import cached_trainings
from experiments.harness.dense_store import Dense
from experiments.harness.filter_cuts import digest_of
from experiments.harness.problem import Problem, optimizer_of, penalty_of
from experiments.harness.rows import Row
from experiments.harness.seeds import training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry, untrained_rows
from experiments.harness.training_runs import Start
from experiments.harness.training_settings import TrainSettings
from experiments.neuron_fusion.fused_nets import Group, Member, Plan, images_of, tuning
from experiments.neuron_fusion.settings import RETRAININGS, Retraining
from jaxtickets.compress import batch_norm
from jaxtickets.compress.report import Report

LEADING = (
    *("which", "how", "asked", "before_density", "retrain", "seed"),
    *("trained_accuracy", "validation_accuracy", "units_left"),
)
"""The first columns of a summary."""
DENSE = "dense"
"""The name of the dense net in the column of rules."""
AGAIN = 1
"""The order of the data in which nets are trained again; 0 is that of the dense training."""


def retrain(
    session: Session, plan: Plan, train: TrainSettings, groups: Sequence[Group]
) -> list[Row]:
    """A summary row for each fused net and each way to retrain it.

    The small nets that are trained are kept as tickets in the run's folder.
    """
    made: list[Row] = []
    for group in groups:
        for name in plan.retrain.retrain:
            way = RETRAININGS[name]
            steps = way.steps(plan.retrain, session.problem)
            trained = plan.retrain.retrained or plan.settings.how
            mine = [one for one in group.members if not steps or one.name["how"] in trained]
            small = _problem(session.problem, plan, train, group, way, steps)
            here = session._replace(problem=small)
            phase = f"{name}-{digest_of(group.net)}"
            if steps:
                entries = {_place(one, name): _entry(small, one) for one in mine}
                done = cached_trainings.train(here, session.folder, phase, entries)
                found = [*done.values()]
            else:
                found = _evaluated(here, plan, phase, mine, way)
            made += [
                one.name | {"retrain": name} | _learnt(row) | _sizes(group.report)
                for one, row in zip(mine, found, strict=True)
            ]
    orders = {
        "retrain": list(plan.retrain.retrain),
        "how": list(plan.settings.how),
        "which": list(plan.settings.which),
        "asked": [one.word for one in plan.amounts],
    }
    return sorted(
        made,
        key=lambda row: (
            -row["before_density"],
            *(order.index(row[name]) for name, order in orders.items()),
            row["seed"],
        ),
    )


def dense_rows(session: Session, dense: Dense, report: Report) -> list[Row]:
    """A summary row of each dense net."""
    whole = Report(
        {name: (n, n) for name, (_, n) in report.units.items()}, report.before, report.before
    )
    return [
        {
            **{"which": DENSE, "how": None, "asked": None, "before_density": 1.0, "retrain": None},
            **{"seed": one.number},
            **{name: row[name] for name in ("trained_accuracy", "validation_accuracy", "seconds")},
            **_sizes(whole),
        }
        for one, row in zip(session.seeds, dense.summary, strict=True)
    ]


def _evaluated(
    session: Session, plan: Plan, phase: str, members: Sequence[Member], way: Retraining
) -> list[Row]:
    """The accuracies without training; measured once."""
    if found := cached_trainings.known(session.folder, phase):
        return found
    problem = session.problem
    entries = [_entry(problem, one) for one in members]
    if way.statistics:
        estimate = jax.jit(
            partial(batch_norm.reestimate, problem.recipe.model, prepare=problem.recipe.prepare)
        )
        images = images_of(session, plan.settings.data_images)
        keys = [training_key(one.seed, AGAIN) for one in members]
        entries = [
            entry._replace(
                start=entry.start._replace(
                    stats=estimate(entry.start.params, entry.start.stats, images, key=key)
                )
            )
            for entry, key in zip(entries, keys, strict=True)
        ]
    made = [
        {
            "trained_accuracy": row["untrained_accuracy"],
            "validation_accuracy": row["untrained_validation_accuracy"],
            "seconds": 0.0,
        }
        for row in untrained_rows(session._replace(problem=problem), entries)
    ]
    cached_trainings.keep(session.folder, phase, made)
    return made


def _problem(
    problem: Problem, plan: Plan, train: TrainSettings, group: Group, way: Retraining, steps: int
) -> Problem:
    """The problem of training a small net. Fine-tuning has no penalty."""
    params = group.members[0].ticket.params
    small = problem.with_net(group.net, penalty_of(train, group.net, params))
    if way.tunes:
        return tuning(small, train, steps, plan.retrain.finetune_rate)
    if not steps:
        return small
    return small.with_recipe(optimizer=optimizer_of(train, steps), evaluations_per_test=0)


def _entry(problem: Problem, one: Member) -> Entry:
    ticket, key = one.ticket, training_key(one.seed, AGAIN)
    start = Start(key, problem.hyper, ticket.params, ticket.stats, ticket.mask)
    return Entry(one.name, start)


def _place(one: Member, retrain: str) -> str:
    """The folder of a trained ticket, under `tickets/`."""
    name = one.name
    before = "" if name["before_density"] == 1 else f"-density{name['before_density']:g}"
    return f"{name['which']}-{name['how']}-{name['asked']}{before}-{retrain}-seed{name['seed']}"


def _learnt(row: Row) -> Row:
    return {name: row[name] for name in ("trained_accuracy", "validation_accuracy", "seconds")}


def _sizes(report: Report) -> Row:
    """The size of a net, and what is left of the dense net's."""
    left, whole = (sum(pair[i] for pair in report.units.values()) for i in (0, 1))
    before, after = report.before, report.after
    return {
        "units_left": round(left / whole, 6),
        "parameters": after.parameters,
        "parameters_left": round(after.parameters / before.parameters, 6),
        "multiply_adds_left": round(after.multiply_adds / before.multiply_adds, 6),
        **{f"units/{name}": count for name, (count, _) in report.units.items()},
    }
