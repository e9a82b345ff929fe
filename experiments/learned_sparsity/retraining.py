"""Trains what is left of each net alone, from the tickets that a run kept. Resumable."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import cached_trainings
from experiments.harness.problem import shorter
from experiments.harness.rows import Row
from experiments.harness.seeds import training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start
from experiments.harness.training_settings import TrainSettings
from experiments.learned_sparsity.settings import LearnSettings
from jaxtickets.io import tickets
from jaxtickets.types import Ticket

AGAIN = 2
"""The order of the data in which what is left is retrained; 0 and 1 are those of the trainings."""


def retrain(
    session: Session, settings: LearnSettings, train: TrainSettings, rows: Sequence[Row]
) -> list[Row]:
    """Trains what is left of each net alone; the rows with the accuracies and the cost of that.

    The masks don't change, the loss has no penalty, and the rate follows the same schedule.
    """
    problem = session.problem
    smaller = shorter(problem, train, settings.retrain_epochs, settings.retrain_rate)
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
            "cost": round(row["cost"] + smaller.steps / problem.steps, 4),
            "seconds": round(row["seconds"] + again["seconds"], 3),
        }
        for row, again in zip(rows, done.values(), strict=True)
    ]


def load(session: Session, place: str) -> Ticket:
    """The ticket of a summary row."""
    ticket, _ = tickets.load_ticket(session.folder / "tickets" / place)
    return ticket._replace(rewind_step=np.int32(0))
