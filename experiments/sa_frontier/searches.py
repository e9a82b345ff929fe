"""The searches that are compared: their settings, their checks, and the masks that they find."""

import dataclasses

from experiments.harness import (
    annealed_plan,
    annealed_trainings,
    budgeted_search,
    sparse_runs,
    trained_masks,
)
from experiments.harness.annealed_variants import ANNEALED
from experiments.harness.budgeted_search import FindSettings, FoundMask, Task
from experiments.harness.candidate_masks import Candidates, GallerySettings
from experiments.harness.flags import numbers
from experiments.harness.problem import Problem
from experiments.harness.search_presets import POLISHED, SEARCH_PRESETS
from experiments.harness.settings import option
from experiments.harness.sparse_runs import GRANET, EvolveSettings
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import start_of
from experiments.harness.training_settings import TrainSettings
from experiments.sa_frontier import distribution_runs, gate_runs
from experiments.sa_frontier.distribution_runs import DISTRIBUTIONS
from jaxtickets import gates
from jaxtickets.io.errors import UserError

RANDOM = {f"random_{name}": name for name in ("uniform", "erk")}
"""Search -> how its random masks share the kept weights among layers."""
USUAL = (GRANET, *SEARCH_PRESETS, *gates.GATES, *POLISHED, *RANDOM)
SEARCHES = (*USUAL, *ANNEALED, *DISTRIBUTIONS)
BUDGETED = (GRANET, *SEARCH_PRESETS, *POLISHED, *ANNEALED, *DISTRIBUTIONS)
"""Searches whose length depends on the budget."""


@dataclasses.dataclass(frozen=True)
class Question:
    """The searches and their budgets. Each field is also a flag of the same name."""

    searches: tuple = option(USUAL, "searches", SEARCHES)
    budget: tuple = option(
        (10.0,), "costs of a search for each seed, in dense trainings", above=0, most=1e9
    )
    race: tuple = option(
        (0.15, 0.35),
        "fractions of the training at which successive halving drops the worse half; empty: none",
        empty=True,
        above=0,
        below=1,
    )


def check_searches(
    question: Question,
    finding: FindSettings,
    evolving: EvolveSettings,
    listed: GallerySettings,
    train: TrainSettings,
    problem: Problem,
) -> None:
    """Raises UserError if a search can't be done with the smallest budget."""
    budgets, densities = numbers("budget", question.budget), numbers("density", listed.density)
    if 1 in densities:
        raise UserError("--density=1: there is nothing to search for, give a lower density")
    for method in question.searches:
        if method in SEARCH_PRESETS:
            budgeted_search.plan_phases(finding, problem, method, min(budgets))
        if method in DISTRIBUTIONS:
            distribution_runs.plan(finding, problem, DISTRIBUTIONS[method], min(budgets))
    variants = {name: ANNEALED[name] for name in question.searches if name in ANNEALED}
    annealed_plan.check(problem, variants, min(budgets), densities, listed.floor, finding.held_out)
    for budget in budgets if GRANET in question.searches else ():
        sparse_runs.check_sparse_training(evolving, problem, train, densities, listed.floor, budget)
    if set(question.searches) & set(POLISHED):
        gate_runs.polish_plan(problem, min(budgets))


def found_entries(
    question: Question,
    finding: FindSettings,
    evolving: EvolveSettings,
    train: TrainSettings,
    made: Candidates,
) -> list[Entry]:
    """The entries of the masks that the searches find for each seed, saved as tickets.

    Args:
      question, finding, evolving, train: the settings.
      made: the run, with its densities and floor.
    """
    session, floor = made.session, made.plan.settings.floor

    def found(method: str, density: float, budget: float) -> list[FoundMask]:
        label = f"{method}-{density:g}" + (f"-{budget:g}" if budget else "")
        task = Task(session, label, density, floor)
        if method == GRANET:
            return sparse_runs.train_sparse(task, evolving, train, budget)
        if method in ANNEALED:
            variant, held_out = ANNEALED[method], finding.held_out
            return annealed_trainings.anneal(task, variant, evolving, train, budget, held_out)
        if method in SEARCH_PRESETS:
            return budgeted_search.search_by_phases(task, method, finding, train, budget)
        if method in DISTRIBUTIONS:
            search = DISTRIBUTIONS[method]
            return distribution_runs.found(task, search, finding, train, budget)
        if method in POLISHED:
            return gate_runs.polished(task, POLISHED[method], budget)
        if method in RANDOM:
            return budgeted_search.random(task, RANDOM[method])
        return gate_runs.gated(task, method)

    entries = []
    for density in made.plan.keep:
        for method in question.searches:
            for budget in numbers("budget", question.budget) if method in BUDGETED else (0.0,):
                masks_of = found(method, density, budget)
                for one, (mask, params, said) in zip(session.seeds, masks_of, strict=True):
                    name = {"method": method, "density": density, "seed": one.number}
                    name |= {"budget": budget or None, **said}
                    entry = Entry(name, start_of(session.problem, one, mask, params))
                    place = f"{method}-density{density:g}-seed{one.number}"
                    place += f"-budget{budget:g}" if budget else ""
                    trained_masks.save_entry(
                        session.folder, session.problem, entry, one.step, place
                    )
                    entries.append(entry)
    return entries
