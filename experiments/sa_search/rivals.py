"""The masks of other searches that the ticket is compared with: those whose weights train."""

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
    """The rivals that are asked for.

    Attributes:
      names: what the ticket is compared with; those of rivals count.
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


def found(asked: Asked, session: Session) -> list[tuple[str, FoundTicket]]:
    """The rivals' names and results."""
    made = []
    for name in asked.names:
        if name not in RIVALS:
            continue

        def find(task: Task, name: str = name) -> list[FoundMask]:
            settings, train, budget = EvolveSettings(), asked.train, asked.budget
            if name == GRANET:
                return sparse_runs.train_sparse(task, settings, train, budget)
            variant = ANNEALED[name]
            return annealed_trainings.anneal(task, variant, settings, train, budget, HELD_OUT)

        task = Task(session, name, 0.0, asked.floor)
        tickets = sparse_runs.tickets(task, asked.densities, find)
        made += [(name, ticket) for ticket in tickets]
    return made
