"""Searches whose weights train: for the ticket itself, or for masks that it is compared with."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.harness import annealed_plan, annealed_trainings, sparse_runs
from experiments.harness.annealed_plan import HELD_OUT
from experiments.harness.annealed_variants import ANNEALED
from experiments.harness.budgeted_search import FoundMask, Task
from experiments.harness.chain_runs import FoundTicket
from experiments.harness.problem import Problem
from experiments.harness.session import Session
from experiments.harness.sparse_runs import GRANET, EvolveSettings
from experiments.harness.training_settings import TrainSettings

RIVALS = (GRANET, *ANNEALED)
"""The names of the searches."""


class Asked(NamedTuple):
    """The searches that are asked for.

    Attributes:
      names: what is searched by, and what the ticket is compared with; those of `RIVALS` count.
      train: the training.
      densities, floor: of the masks.
      budget: of each search, in dense trainings.
    """

    names: Sequence[str]
    train: TrainSettings
    densities: Sequence[float]
    floor: int
    budget: float


def check(asked: Asked, problem: Problem) -> None:
    """Raises UserError if a rival can't be found, before any work."""
    names, train, densities, floor, budget = asked
    variants = {name: ANNEALED[name] for name in names if name in ANNEALED}
    annealed_plan.check(problem, variants, budget, densities, floor, HELD_OUT)
    if GRANET in names:
        sparse_runs.check_sparse_training(
            EvolveSettings(), problem, train, densities, floor, budget
        )


def search(asked: Asked, session: Session, name: str, label: str) -> list[FoundTicket]:
    """The results of the search `name`, one for each density and seed; `label` names its phases."""

    def find(task: Task) -> list[FoundMask]:
        settings, train, budget = EvolveSettings(), asked.train, asked.budget
        if name == GRANET:
            return sparse_runs.train_sparse(task, settings, train, budget)
        variant = ANNEALED[name]
        return annealed_trainings.anneal(task, variant, settings, train, budget, HELD_OUT)

    return sparse_runs.tickets(Task(session, label, 0.0, asked.floor), asked.densities, find)


def found(asked: Asked, session: Session, names: Sequence[str]) -> list[tuple[str, FoundTicket]]:
    """The names and results of those of `names` that are rivals."""
    mine = [name for name in names if name in RIVALS]
    return [(name, ticket) for name in mine for ticket in search(asked, session, name, name)]
