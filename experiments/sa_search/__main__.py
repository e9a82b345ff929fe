"""Can simulated annealing over masks find a ticket in a net that isn't trained?

By default, a chain's point is a mask with the weights that train under it. Each move drops small
weights and grows others of large gradient, sampled at a temperature that falls, and then trains for
some steps; the last mask goes back to the first weights. With other presets, chains walk over the
masks of weights that don't train: --preset=annealed_rewiring swaps by what a few training steps
say, and accepts by Metropolis' rule; with --preset=annealing, swaps are random and the energy is
the untrained net's loss. Each seed's best ticket is then trained and compared with masks that no
search made (random, SNIP, one-shot magnitude), GraNet's, which evolves without heat, and the dense
net.

    python -m experiments.sa_search --model=lenet5
    python -m experiments.sa_search --preset=annealed_rewiring --model=lenet5
    python -m experiments.sa_search --preset=annealing --model=lenet5

README.md in this folder has its results, with spread, device and time.
"""

import dataclasses
from functools import partial

from absl import flags

from experiments.harness import (
    annealed_settings,
    annealing_runs,
    method_figures,
    rows,
    searched_tickets,
    tables,
)
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    numbers,
    read_all,
    refuse_idle,
    with_preset,
)
from experiments.harness.main import run_main
from experiments.harness.seeds import WEIGHTS, weighted
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import MOST_RUNS, MOST_STEPS, option
from experiments.harness.trained_masks import LEADING
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.sa_search import presets, rivals
from experiments.sa_search.figure import draw_annealed_training, draw_search
from experiments.sa_search.walks import run_walk
from jaxtickets.recipes.baseline_masks import BASELINES
from jaxtickets.search.energies import rescale


@dataclasses.dataclass(frozen=True)
class Question:
    """The search and its size, and the masks with which its ticket is compared."""

    search: str = option(
        presets.MASKS, "what anneals: masks alone, or masks whose weights train", presets.SEARCHES
    )
    density: tuple = option(
        (0.1,), "kept fraction of weights or units; several with commas", above=0, below=1
    )
    chains: int = option(1, "chains of each density and seed", least=1, most=MOST_RUNS)
    weights: str = option("init", "the weights that masks select from", WEIGHTS)
    weights_steps: int = option(
        75,
        "training steps before the search, if trained; the ticket's training counts from 0 again",
        least=1,
        most=MOST_STEPS,
    )
    compare: tuple = option(("ticket", *BASELINES), "what is trained", presets.METHODS)
    granet_budget: float = option(
        1.0,
        "dense trainings that granet or a search whose weights train may cost",
        above=0,
        most=1e9,
    )


GROUPS = (
    RunSettings(),
    Question(),
    annealed_settings.AnnealingSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, runs the search, and trains the ticket and the other masks."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    place, *parts = read_all(GROUPS, presets.preset(name, flags.FLAGS.model))
    refuse_idle(presets.IDLE, parts)
    question, settings, net, train, _ = parts
    presets.check_compared(question.compare, settings)
    axis, problem = set_up(place, parts)
    densities, floor = numbers("density", question.density), settings.floor
    walks = question.search == presets.MASKS
    checked = annealing_runs.check_annealing(
        settings, problem, net.seed, densities, axis, question.chains
    )
    asked = rivals.Asked(
        names=(question.search, *question.compare),
        train=train,
        densities=densities,
        floor=floor,
        budget=question.granet_budget,
    )
    rivals.check(asked, problem)
    session = start_run("sa_search", place, parts, axis, problem)

    seeds = [
        weighted(problem, one, question.weights, question.weights_steps, session.data)
        for one in session.seeds
    ]
    session = session._replace(seeds=seeds)
    if walks:
        found = run_walk(session, checked, question.chains)
    else:
        found = rivals.search(asked, session, question.search, "search")

    scaled = partial(rescale, prunable=problem.prunable)
    summary = searched_tickets.train(
        session=session._replace(later=0.0),
        space=checked.where.space,
        found=found,
        methods=[name for name in question.compare if name not in rivals.RIVALS],
        floor=floor,
        weights=scaled if walks and settings.rescale else searched_tickets.as_they_are,
        rivals=rivals.found(asked, session, question.compare),
    )

    rows.write_summary(session.folder, summary, *LEADING)
    (draw_search if walks else draw_annealed_training)(session.folder)
    method_figures.draw_accuracies(session.folder)
    method_figures.draw_layers(session.folder)
    words = f"{annealed_settings.in_words(settings)}, accept={settings.accept}"
    print(f"ticket: {words if walks else question.search}\n{tables.methods(summary)}")
    finish_run(session.folder)


if __name__ == "__main__":
    words = f"settings by name: {', '.join(presets.NAMES)}; explicit flags come first"
    flags.DEFINE_string("preset", presets.DEFAULT, words)
    flags.DEFINE_bool("smoke", False, "seconds long: the preset of that name")
    define(*(with_preset(group, presets.PRESETS[presets.DEFAULT]) for group in GROUPS))
    run_main(main)
