"""Is the mask that a sparse training ends with worth training again, from the first weights?

A mask evolves in one training that is sparse from its start (GraNet): round by round the smallest
weights go and some others come, those where the gradient is largest, until as few are left as asked
for. The net is then rewound, and the mask trained, beside masks that cost no search, from the same
initialisation: random, random with the ticket's count in each layer, SNIP, one-shot magnitude
after dense training, and the dense net.

    python -m experiments.sparse_training
    python -m experiments.sparse_training --density=0.1,0.03 --budget=2

The README beside it has the numbers to expect, with spread, device and time.
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
)
from experiments.harness.budgeted_search import Task
from experiments.harness.evolution_figure import draw_evolution
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    numbers,
    read_all,
    refuse_idle,
)
from experiments.harness.main import run_main
from experiments.harness.seeds import WEIGHTS, weighted
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import MOST_RUNS, MOST_STEPS, MOST_UNITS, Except, choose, option
from experiments.harness.sparse_runs import EvolveSettings
from experiments.harness.trained_masks import LEADING
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from experiments.sparse_training.page import table
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
    """Which masks evolve, for how long, and what they are compared with."""

    budget: float = option(4.0, "dense trainings that a chain may cost", above=0, most=1e9)
    density: tuple = option(
        (0.1,), "kept fraction of weights; several with commas", above=0, below=1
    )
    floor: int = option(1, "the least that a layer keeps", least=0, most=MOST_UNITS)
    chains: int = option(
        1, "chains of each seed, of which validation chooses one", least=1, most=MOST_RUNS
    )
    weights: str = option("init", "the weights that masks select from", WEIGHTS)
    weights_steps: int = option(
        75,
        "training steps before the search, if trained; later ones count anew",
        least=1,
        most=MOST_STEPS,
    )
    compare: tuple = option(METHODS, f"what is trained, of {', '.join(METHODS)}")


GROUPS = (
    RunSettings(),
    Question(),
    EvolveSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads the flags, checks them, lets masks evolve, trains, compares."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    choose("preset", name, tuple(PRESETS))
    place, *parts = read_all(GROUPS, PRESETS[name])
    question, evolution, _, train, _ = parts
    refuse_idle({**IDLE, "weights_steps": ({"weights": Except(("trained",))},)}, parts)
    for method in question.compare:
        choose("method", method, METHODS)
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
        f"ticket: granet, initial density {evolution.granet_from:g}, for {question.budget:g} dense "
        f"trainings' work a chain\n{table(summary)}"
    )
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "settings by name: smoke; explicit flags come first")
    flags.DEFINE_bool("smoke", False, "seconds long: the preset of that name")
    define(*GROUPS)
    run_main(main)
