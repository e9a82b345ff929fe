"""Does the final mask of a sparse training train well again from the initialisation?

The mask evolves in one training that is sparse from its start (GraNet). In each round the weights
of smallest magnitude are pruned and fewer are regrown, where the gradient is largest, until the
target density is reached. The net is then rewound, and the mask is trained from the initialisation.
It is compared with random masks, random masks with the ticket's layer counts, SNIP, one-shot
magnitude after dense training, and the dense net.

    python -m experiments.sparse_training
    python -m experiments.sparse_training --density=0.1,0.03 --budget=2

The results are in experiments/sparse_training/README.md, with n, spread, device and time.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.harness import (
    memory,
    method_figures,
    rows,
    searched_tickets,
    sparse_runs,
    tables,
)
from experiments.harness.budgeted_search import Task
from experiments.harness.evolution_figure import draw_evolution
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    numbers,
    preset_of,
    read_all,
    refuse_idle,
)
from experiments.harness.main import run_main
from experiments.harness.seeds import WEIGHTS, weighted
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import MOST_RUNS, MOST_STEPS, MOST_UNITS, Except, option
from experiments.harness.sparse_runs import EvolveSettings
from experiments.harness.trained_masks import LEADING
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from jaxtickets.recipes.baseline_masks import BASELINES
from jaxtickets.search import space as spaces

METHODS = ("ticket", *BASELINES)
SMOKE: dict[str, Any] = {
    "model": "lenet300_100",
    "density": (0.2,),
    "compare": ("ticket", "random"),
    "budget": 2.0,
    "chains": 2,
    "seeds": 1,
    "epochs": 2,
    "batch_size": 250,
}
PRESETS: dict[str, dict[str, Any]] = {"": {}, "smoke": SMOKE}


@dataclasses.dataclass(frozen=True)
class Question:
    """The densities, the budget, and the masks to compare. Each field is also a flag."""

    budget: float = option(4.0, "cost of a chain, in dense trainings", above=0, most=1e9)
    density: tuple = option((0.1,), "kept fractions of the prunable weights", above=0, below=1)
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=MOST_UNITS)
    chains: int = option(
        1,
        "chains for each seed; the one with the lowest validation loss gives the mask",
        least=1,
        most=MOST_RUNS,
    )
    weights: str = option("init", "weights that masks select from", WEIGHTS)
    weights_steps: int = option(
        75,
        "training steps before the search, with --weights=trained; later steps count from 0",
        least=1,
        most=MOST_STEPS,
    )
    compare: tuple = option(METHODS, "masks to train", METHODS)


GROUPS = (
    RunSettings(),
    Question(),
    EvolveSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains sparsely, trains the masks, compares."""
    place, *parts = read_all(GROUPS, preset_of(PRESETS))
    question, evolution, _, train, _ = parts
    refuse_idle({**IDLE, "weights_steps": ({"weights": Except(("trained",))},)}, parts)
    densities, floor = numbers("density", question.density), question.floor
    axis, problem = set_up(place, parts)
    sparse_runs.check_sparse_training(evolution, problem, train, densities, floor, question.budget)
    each = memory.training(problem.param_shapes)
    memory.check_memory(f"--chains={question.chains}", question.chains, each, "trainings of a seed")
    session = start_run("sparse_training", place, parts, axis, problem)

    # --- search
    seeds = [
        weighted(problem, one, question.weights, question.weights_steps, session.data)
        for one in session.seeds
    ]
    session = session._replace(seeds=seeds)
    task = Task(session, "search", 0.0, floor)
    found = sparse_runs.tickets(task, densities, evolution, train, question.budget, question.chains)

    # --- compare
    summary = searched_tickets.train(
        session=session,
        space=spaces.weights(problem.param_shapes, problem.prunable),
        found=found,
        methods=question.compare,
        floor=floor,
    )

    # --- report
    rows.write_summary(session.folder, summary, *LEADING)
    draw_evolution(session.folder, "search-")
    method_figures.draw_accuracies(session.folder)
    method_figures.draw_layers(session.folder)
    print(
        f"ticket: granet, initial density {evolution.granet_from:g}, each chain costs "
        f"{question.budget:g} dense trainings\n{tables.methods(summary)}"
    )
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
