"""Which way of finding a ticket without dense training is worth its cost?

Methods find masks at the initialisation, all under the same budget. Annealing minimises the loss
after some training steps, by swaps that those steps suggest (`rewired`) or over fields of
potentials (`annealed_fields`). `granet_heat` and the other variants of `annealed_training` anneal
while the net trains. REINFORCE (`policy_gradient_layers`, `policy_gradient_weights`) and the
cross-entropy method (`cross_entropy_layers`, `cross_entropy_weights`) learn a distribution of
layers' shares, or of single weights. Controls with the same budget are hill climbing, annealing
over bits, random search and edge-popup; sparse training (`granet`) has it too. Random masks, SNIP,
GraSP and SynFlow cost almost nothing; one-shot magnitude needs a dense training. All masks are
trained from the same initialisation. Successive halving during these trainings chooses a winner
(`raced`) among the masks that need no dense training.

    python -m experiments.sa_frontier --preset=quick
    python -m experiments.sa_frontier --preset=mnist --data_dir=FOLDER

The results are in experiments/sa_frontier/README.md, with n, spread, device and time.
"""

from typing import Any

from absl import flags

from experiments.harness import budgeted_search, candidate_masks, rows
from experiments.harness.budgeted_search import FindSettings, price
from experiments.harness.candidate_masks import GallerySettings
from experiments.harness.dense_store import StoreSettings
from experiments.harness.flags import BatchSettings, RunSettings, define, preset_of, read_all
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up
from experiments.harness.sparse_runs import GRANET, EvolveSettings
from experiments.harness.trained_masks import LEADING, train_in_parts
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.sa_frontier import evolution_figure, figure, halving_runs, searches
from experiments.sa_frontier.page import table
from experiments.sa_frontier.searches import SEARCHES, Question
from jaxtickets.io.errors import UserError

SMOKE: dict[str, Any] = {
    "dataset": "digits",
    "widths": "30,20",
    "train_images": 1000,
    "batch_size": 32,
    "seeds": 2,
    "density": (0.1,),
    "searches": (
        *("granet", "annealed_fields", "gradual_edge_popup", "random_erk"),
        "policy_gradient_weights",
    ),
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
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    question, finding, evolving, listed, _, train, _ = parts
    if listed.tickets:
        raise UserError(
            "--tickets: the search cost of saved tickets is unknown, leave the flag out"
        )
    axis, problem = set_up(place, parts)
    looks = halving_runs.looks_at(question.race, problem)
    searches.check_searches(question, finding, evolving, listed, train, problem)
    made = candidate_masks.start_candidates(
        "sa_frontier", place, store, parts, axis, problem, trained=True, others=True
    )
    entries = [
        entry._replace(name=entry.name | {"forward_passes": price(problem, entry.name["method"])})
        for entry in made.entries
    ]
    entries += searches.found_entries(question, finding, evolving, train, made)

    folder = made.session.folder
    summary = made.summary + train_in_parts(made.session, "train", entries)
    summary += halving_runs.races(folder, "train-", summary, SEARCHES, problem, looks)
    dense = budgeted_search.dense_cost(problem)
    for row in summary:
        row["dense_trainings"] = round(row.get("forward_passes", dense) / dense, 4)
    rows.write_summary(folder, summary, "method", "budget", "dense_trainings", *LEADING[1:])

    figure.draw_accuracy_over_density(folder)
    figure.draw_trained_over_untrained(folder)
    figure.draw_accuracy_over_budget(folder)
    if GRANET in question.searches:
        evolution_figure.draw_evolution(folder, f"{GRANET}-")
    figure.draw_where(folder, entries, problem.prunable, problem.image_shape)
    print(table(summary))
    finish_run(folder)


if __name__ == "__main__":
    words = "preset: quick, mnist or smoke; explicit flags override it"
    flags.DEFINE_string("preset", "", words)
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
