"""The lengths of annealed trainings under a budget, checked before work starts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.harness import sparse_runs
from experiments.harness.annealed_variants import ALWAYS, Variant
from experiments.harness.budgeted_search import dense_cost
from experiments.harness.problem import Problem
from experiments.harness.seeds import examples
from experiments.harness.sparse_runs import EVALUATIONS, SparseTrainingPlan
from jaxtickets.io.errors import UserError
from jaxtickets.search.energies import training_cost

HELD_OUT = 500
"""Images kept from training where a search doesn't say how many."""
JUDGED = 1 / 16
"""The length of a judged chain's training from the first weights, in dense trainings."""


class AnnealedPlan(NamedTuple):
    """The plan of a variant's chains.

    Attributes:
      training: the plan of each chain in each cycle.
      judged: the steps of the training that judges a chain; 0 if there is none.
      cost: the forward passes of one example that all chains of a seed take in all cycles.
    """

    training: SparseTrainingPlan
    judged: int
    cost: int


def scored_images(variant: Variant, held_out: int) -> int:
    """The training images that are kept from training for energies."""
    return held_out if variant.accept != ALWAYS or variant.interaction != "none" else 0


def plan(problem: Problem, variant: Variant, budget: float, held_out: int) -> AnnealedPlan:
    """The longest chains that cost no more than `budget` dense trainings together.

    Raises:
      UserError: the budget is too small, or too few training images are left.
    """
    data, batch = problem.dataset, problem.recipe.batch_size
    scored = scored_images(variant, held_out)
    if scored + batch > len(data.train.labels):
        raise UserError(f"--held_out={held_out}: there are {len(data.train.labels)} images")
    dense = dense_cost(problem)
    judged = max(1, round(JUDGED * problem.steps)) if variant.rewound else 0
    judging = training_cost(judged * batch) + len(data.validation.labels) if judged else 0
    energies = (2 if variant.accept != ALWAYS else 1) * scored
    once = training_cost(examples(data))
    many = variant.chains * variant.cycles
    share = ((budget * dense - once) / many + once - judging) / dense
    training = sparse_runs.plan_sparse_training(problem, share)
    left = share - training.rounds * energies / dense
    training = sparse_runs.plan_sparse_training(problem, left)._replace(rounds=training.rounds)
    every = training.every
    while True:  # as many rounds as before, of fewer steps
        each = training_cost(every * batch + training.images) + energies
        own = scored + training.rounds * each  # the first masks' energy, then the rounds'
        own += EVALUATIONS * len(data.validation.labels) + judging
        if many * own + once <= budget * dense or every == 1:
            break
        every -= 1
    return AnnealedPlan(training._replace(every=every), judged, many * own + once)


def check(
    problem: Problem,
    variants: Mapping[str, Variant],
    budget: float,
    densities: Sequence[float],
    floor: int,
    held_out: int,
) -> None:
    """Raises UserError if a variant can't be done, before any work."""
    for variant in variants.values():
        plan(problem, variant, budget, held_out)
    sparse_runs.check_densities(problem, densities, floor)
