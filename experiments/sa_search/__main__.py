"""Can simulated annealing over masks find a ticket in a net that isn't trained?

Chains walk over the masks of a net at its initial weights. By default, the energy of a mask is the
held-out loss after a few training steps from these weights. These steps also propose the swaps,
which Metropolis' rule accepts at a falling temperature; the net is rewound after each proposal.
With --preset=annealing, swaps are random and the energy is the untrained net's loss. The best
ticket of each seed is then trained, and compared with other masks of the same weights: masks
without a search (random, random with the ticket's count in each layer, SNIP, one-shot magnitude
after dense training), GraNet's mask, which evolves in one sparse training, the masks of annealings
whose weights train (`granet_heat` and others, see annealed_training), and the dense net.

    python -m experiments.sa_search --model=lenet5
    python -m experiments.sa_search --preset=annealing --model=lenet5
    python -m experiments.sa_search --preset=thesis --model=lenet300_100 --density=0.3,0.2,0.1

README.md in this folder has its results, with spread, device and time.
"""

import dataclasses

from absl import flags

from experiments.harness import (
    annealed_settings,
    annealing_runs,
    method_figures,
    rows,
    searched_tickets,
    tables,
)
from experiments.harness.chunked_run import seconds
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
from experiments.sa_search.figure import draw_search
from experiments.sa_search.search_cost import search_passes
from jaxtickets.recipes.baseline_masks import BASELINES
from jaxtickets.search.energies import rescale
from jaxtickets.types import Mask, Params


@dataclasses.dataclass(frozen=True)
class Question:
    """The size of the search, and the masks with which its ticket is compared."""

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
        "dense trainings that a search of compare=granet, or of its annealed variants, may cost",
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
    checked = annealing_runs.check_annealing(
        settings, problem, net.seed, densities, axis, question.chains
    )
    rival = rivals.Asked(question.compare, train, densities, floor, question.granet_budget)
    rivals.check(rival, problem)
    session = start_run("sa_search", place, parts, axis, problem)

    seeds = [
        weighted(problem, one, question.weights, question.weights_steps, session.data)
        for one in session.seeds
    ]
    session = session._replace(seeds=seeds)
    found = annealing_runs.run_annealing(session, "search", checked, question.chains)
    cost = {
        "forward_passes": search_passes(settings, problem, question.chains),
        "search_seconds": round(seconds(session.folder, "search") / len(found), 3),
    }
    found = [ticket._replace(columns=cost | ticket.columns) for ticket in found]

    def weights(mask: Mask, params: Params) -> Params:
        return rescale(mask, params, problem.prunable) if settings.rescale else params

    summary = searched_tickets.train(
        session=session,
        space=checked.where.space,
        found=found,
        methods=[name for name in question.compare if name not in rivals.RIVALS],
        floor=floor,
        weights=weights,
        rivals=rivals.found(rival, session),
    )

    rows.write_summary(session.folder, summary, *LEADING)
    draw_search(session.folder)
    method_figures.draw_accuracies(session.folder)
    method_figures.draw_layers(session.folder)
    description = f"{annealed_settings.in_words(settings)}, accept={settings.accept}"
    print(f"ticket: {description}\n{tables.methods(summary)}")
    finish_run(session.folder)


if __name__ == "__main__":
    words = f"settings by name: {', '.join(presets.NAMES)}; explicit flags come first"
    flags.DEFINE_string("preset", presets.DEFAULT, words)
    flags.DEFINE_bool("smoke", False, "seconds long: the preset of that name")
    define(*(with_preset(group, presets.PRESETS[presets.DEFAULT]) for group in GROUPS))
    run_main(main)
