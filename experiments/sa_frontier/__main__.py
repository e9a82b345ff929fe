"""Which way of finding a ticket without dense training is worth its cost?

Methods find masks at the initialisation, all under the same budget. Annealing minimises the loss
after some training steps, by swaps that those steps suggest (`rewired`) or over fields of
potentials (`annealed_fields`). Controls with the same budget are hill climbing, annealing over
bits, random search and edge-popup; sparse training (`granet`) has it too. Random masks, SNIP, GraSP
and SynFlow cost almost nothing; one-shot magnitude needs a dense training. All masks are trained
from the same initialisation. Successive halving during these trainings chooses a winner (`raced`)
among the masks that need no dense training.

    python -m experiments.sa_frontier --preset=quick
    python -m experiments.sa_frontier --preset=mnist --data_dir=FOLDER

The results are in experiments/sa_frontier/README.md, with n, spread, device and time.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.harness import (
    budgeted_search,
    candidate_masks,
    evolution_figure,
    rows,
    sparse_runs,
    trained_masks,
)
from experiments.harness.budgeted_search import FindSettings, FoundMask, Task, price
from experiments.harness.candidate_masks import GallerySettings
from experiments.harness.dense_store import StoreSettings
from experiments.harness.flags import BatchSettings, RunSettings, define, numbers, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.search_presets import FINDERS, POLISHED
from experiments.harness.session import finish_run, set_up
from experiments.harness.settings import choose, option
from experiments.harness.sparse_runs import GRANET, EvolveSettings
from experiments.harness.trained_masks import Entry, train_in_parts
from experiments.harness.training_runs import start_of
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.sa_frontier import figure, gate_runs, halving_runs
from experiments.sa_frontier.page import table
from jaxtickets import gates
from jaxtickets.io.errors import UserError

RANDOM = ("uniform", "erk")
LEADING = ("method", "budget", "dense_trainings", *trained_masks.LEADING[1:])
"""The first columns of the summary."""
SEARCHES = (GRANET, *FINDERS, *gates.GATES, *POLISHED, *(f"random_{name}" for name in RANDOM))
BUDGETED = (GRANET, *FINDERS, *POLISHED)
"""Searches whose length depends on the budget."""
SMOKE: dict[str, Any] = {
    "seeds": 2,
    "density": (0.1,),
    "searches": ("granet", "annealed_fields", "gradual_edge_popup", "random_erk"),
    "criteria": ("snip", "magnitude"),
    "budget": (8.0,),
    "chains": 2,
    "phases": 2,
    "train_steps": 3,
    "rewire_steps": 3,
    "held_out": 200,
    "epochs": 2,
    "race": (0.5,),
}
FEW = ("granet", "rewired", "annealed_fields", "random_search", "edge_popup", "random_erk")
QUICK: dict[str, Any] = {
    "density": (0.1, 0.03),
    "searches": FEW,
    "budget": (4.0,),
    "chains": 4,
    "phases": 2,
    "train_steps": 10,
    "rewire_steps": 40,
    "held_out": 700,
    "epochs": 15,
}
MNIST: dict[str, Any] = {
    "dataset": "mnist",
    "held_out": 4000,
    "density": (0.1, 0.03, 0.015),
    "searches": FEW,
    "criteria": ("snip", "grasp", "synflow", "initial_fisher", "magnitude"),
    "budget": (1.0, 4.0),
    "chains": 4,
    "phases": 2,
    "seeds": 5,
}
PRESETS = {"": {}, "smoke": SMOKE, "quick": QUICK, "mnist": MNIST}


@dataclasses.dataclass(frozen=True)
class Question:
    """The searches and their budgets. Each field is also a flag of the same name."""

    searches: tuple = option(SEARCHES, f"searches: {', '.join(SEARCHES)}")
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


GROUPS = (
    RunSettings(),
    StoreSettings(),
    Question(),
    FindSettings(),
    EvolveSettings(),
    GallerySettings(criteria=("snip", "grasp", "synflow", "magnitude"), density=(0.1,), floor=1),
    NetSettings(model="lenet300_100", use_bias=False, initializer="kaiming_normal"),
    TrainSettings(optimizer="momentum", learning_rate=0.1, epochs=15),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, searches, trains the masks, draws."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    choose("preset", name, tuple(PRESETS))
    place, store, *parts = read_all(GROUPS, PRESETS[name])
    question, settings, evolution, listed, _, train, _ = parts
    if listed.tickets:
        raise UserError(
            "--tickets: the search cost of saved tickets is unknown, leave the flag out"
        )
    for method in question.searches:
        choose("searches", method, SEARCHES)
    budgets = numbers("budget", question.budget)
    if 1 in numbers("density", listed.density):
        raise UserError("--density=1: there is nothing to search for, give a lower density")
    axis, problem = set_up(place, parts)
    looks = halving_runs.looks_at(question.race, problem)
    for method in question.searches:
        if method in FINDERS:
            budgeted_search.plan_phases(settings, problem, method, min(budgets))
    if GRANET in question.searches:
        kept = numbers("density", listed.density)
        for budget in budgets:
            sparse_runs.check_sparse_training(evolution, problem, train, kept, listed.floor, budget)
    if set(question.searches) & set(POLISHED):
        gate_runs.polish_plan(problem, min(budgets))
    made = candidate_masks.start_candidates(
        "sa_frontier", place, store, parts, axis, problem, trained=True, others=True
    )

    # --- search
    folder, floor = made.session.folder, made.plan.settings.floor
    entries = [
        entry._replace(name=entry.name | {"forward_passes": price(problem, entry.name["method"])})
        for entry in made.entries
    ]

    def found(method: str, density: float, budget: float) -> list[FoundMask]:
        label = f"{method}-{density:g}" + (f"-{budget:g}" if budget else "")
        task = Task(made.session, label, density, floor)
        if method == GRANET:
            return sparse_runs.train_sparse(task, evolution, train, budget)
        if method in FINDERS:
            return budgeted_search.search_by_phases(task, method, settings, train, budget)
        if method in POLISHED:
            return gate_runs.polished(task, POLISHED[method], budget)
        if method in gates.GATES:
            return gate_runs.gated(task, method)
        return budgeted_search.random(task, method.removeprefix("random_"))

    for density in made.plan.keep:
        for method in question.searches:
            for budget in budgets if method in BUDGETED else (0.0,):
                masks_of = found(method, density, budget)
                entries += _entries(problem, made, method, density, masks_of, budget or None)

    # --- train
    summary = made.summary + train_in_parts(made.session, "train", entries)
    dense = budgeted_search.dense_cost(problem)
    summary += halving_runs.races(folder, "train-", summary, SEARCHES, problem, looks)
    for row in summary:
        row["dense_trainings"] = round(row.get("forward_passes", dense) / dense, 4)
    rows.write_summary(folder, summary, *LEADING)
    figure.draw_accuracy_over_density(folder)
    figure.draw_trained_over_untrained(folder)
    figure.draw_accuracy_over_budget(folder)
    image = problem.image_shape
    if GRANET in question.searches:
        evolution_figure.draw_evolution(folder, f"{GRANET}-")
    figure.draw_where(folder, entries, problem.prunable, image)
    print(table(summary))
    finish_run(made.session.folder)


def _entries(
    problem: Problem,
    made: candidate_masks.Candidates,
    method: str,
    density: float,
    found: Sequence[FoundMask],
    budget: float | None,
) -> list[Entry]:
    """The entries of the masks that a method found for each seed, which are saved as tickets."""
    entries = []
    for one, (mask, params, said) in zip(made.session.seeds, found, strict=True):
        name = {"method": method, "density": density, "seed": one.number, "budget": budget, **said}
        entry = Entry(name, start_of(problem, one, mask, params))
        place = f"{method}-density{density:g}-seed{one.number}"
        place += f"-budget{budget:g}" if budget else ""
        trained_masks.save_entry(made.session.folder, problem, entry, one.step, place)
        entries.append(entry)
    return entries


if __name__ == "__main__":
    words = "preset: quick, mnist or smoke; explicit flags override it"
    flags.DEFINE_string("preset", "", words)
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
