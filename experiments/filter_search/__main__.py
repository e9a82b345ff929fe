"""Which filters are worth training?

This is the second half of the annealing thesis. Masks with a bit for each filter or neuron are
annealed over the initial weights, or over those after some epochs. The units that are off are
removed, and the small net is trained from the initial weights. With --granularity=unit_fields the
search has a potential for each layer and unit in place of a bit, so that it can meet a budget of
multiply-adds and choose the layers that get them. The trainability energy is the held-out loss
after a few training steps.

At the same shares the found units are compared with random units, with the units of largest mean
|w| after dense training, and with those of largest mean trained weight times the sign of the mean
initial weight. The found units shuffled within layers show whether the search found units or only
layer counts.

    python -m experiments.filter_search
    python -m experiments.filter_search --granularity=unit_fields --budget=0.2,0.05
    python -m experiments.filter_search --model=cnn960 --dataset=cifar10 --preset=thesis

The results are in experiments/filter_search/README.md, with n, spread, device and time.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.filter_search.page import table
from experiments.harness import (
    annealed_settings,
    annealing_runs,
    filter_cuts,
    soft_filter_pruning,
    structured_runs,
)
from experiments.harness import structured_figures as figures
from experiments.harness.chain_runs import FoundTicket
from experiments.harness.dense_store import Dense, StoreSettings, dense_nets
from experiments.harness.filter_cuts import AfterSettings, Choice, CutPlan, CutSettings
from experiments.harness.flags import BatchSettings, RunSettings, define, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, mask_key, weighted
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import MOST_RUNS, MOST_STEPS, option
from experiments.harness.settings import choose as choose_name
from experiments.harness.thesis_annealing import thesis_search
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets.compress import budget, unit_selection
from jaxtickets.compress.graph import Graph
from jaxtickets.io.errors import UserError
from jaxtickets.runs import Axis, take

INIT, ENERGIES = "init", ("fixed", "trainability")
SMOKE: dict[str, Any] = {
    "model": "lenet5_29k",
    "seeds": 2,
    "methods": ("random",),
    "rates": (0.5,),
    "ranking": "by_layer",
    "weights_from": (INIT, "1"),
    "energies": ("fixed",),
    "chains": 1,
    "search_steps": 20,
    "search_train_steps": 2,
    "after": ("rewind",),
    "repeats": 10,
    "epochs": 1,
}
THESIS: dict[str, Any] = {
    "model": "cnn960",
    "dataset": "cifar10",
    "rates": (0.5, 0.4, 0.3, 0.2),
    "methods": ("random", "mean_abs", "sign_mean"),
    "ranking": "over_layers",
    "weights_from": (INIT, "90"),
    "chains": 1,
    "search_steps": 8200,
    "search_images": 1024,
    "search": "thesis",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "learning_rates": "steps",
    "drops": "0.3333,0.6667",
    "weight_decay": 1e-4,
    "batch_size": 256,
    "epochs": 90,
}
POTENTIALS: dict[str, Any] = {
    "features": ("chance",),
    "mix": "1",
    "pooled": "",
    "size": 0.5,
    "size_end": 0.1,
}
"""Fields start flat, so with random units like the baseline. The sizes are those of
`sa_frontier`."""
PRESETS = {"": {}, "smoke": SMOKE, "thesis": THESIS}


@dataclasses.dataclass(frozen=True)
class Question:
    """How units are searched for. Each field is also a flag of the same name."""

    weights_from: tuple = option(
        (INIT,), "weights during the search: init, or the number of epochs after which to take them"
    )
    energies: tuple = option(
        ENERGIES,
        "energies to minimise: fixed (loss of the untrained net) or trainability (loss after a few "
        "steps)",
    )
    granularity: str = option(
        "units", "a bit for each unit, or a field of potentials", ("units", "unit_fields")
    )
    shuffled: bool = option(True, "also train random units with the layer counts of found units")
    search: str = option("best", "annealing settings", ("best", "thesis"))
    chains: int = option(1, "chains for each seed, share and energy", least=1, most=MOST_RUNS)
    search_steps: int = option(120, "steps of a chain, a multiple of 20", least=20, most=MOST_STEPS)
    search_images: int = option(
        500, "training images on which energies are evaluated", least=1, most=10**9
    )
    search_train_steps: int = option(
        20, "training steps of the trainability energy", least=1, most=10**6
    )


GROUPS = (
    RunSettings(),
    StoreSettings(),
    Question(),
    CutSettings(methods=("random", "mean_abs", "sign_mean"), ranking="over_layers"),
    AfterSettings(after=("rewind",)),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains dense nets, searches, cuts, trains, measures, draws."""
    place, store, *parts = _read()
    question, cut, after, net, train, _ = parts
    axis, problem = set_up(place, parts)
    plan = filter_cuts.plan_cuts(cut, after, train, problem)
    problem = problem._replace(wiring=plan.graph.wiring)
    epoch = problem.epoch_steps
    epochs = _epochs(question.weights_from, problem.steps // epoch)
    _check_groups(plan.graph, net.model)
    searches = check_searches(question, plan, problem, net.seed, axis)
    session = start_run("filter_search", place, parts, axis, problem)
    seeds, dense = session.seeds, dense_nets(session, train, store)

    choices = filter_cuts.scored(session, plan, dense)
    choices += soft_filter_pruning.choices(session, plan)
    for number in epochs:
        kind = "trained" if number else INIT
        begun = session._replace(
            seeds=[weighted(problem, one, kind, number * epoch, session.data) for one in seeds]
        )
        for energy, checked in searches.items():
            name = _name(energy, number)
            found = annealing_runs.run_annealing(begun, name, checked, question.chains)
            made = [choice(name, one, checked, seeds, dense) for one in found]
            choices += [*made, *(shuffled(one, plan.graph) for one in made if question.shuffled)]
    groups = filter_cuts.cut(plan, problem, choices)
    summary = structured_runs.train_nets(session, plan, groups, dense)

    figures.draw_widths(session.folder)
    figures.draw_accuracies(session.folder)
    print(table(summary))
    finish_run(session.folder)


def check_searches(
    question: Question, plan: CutPlan, problem: Problem, first: int, axis: Axis
) -> dict[str, annealing_runs.CheckedAnnealing]:
    """Energy -> the checked search that minimises it.

    Args:
      question: the settings of the search.
      plan: its shares of the units or of the multiply-adds are searched for.
      problem: the net and its training.
      first: the first seed.
      axis: the run axis.

    Raises:
      UserError: the settings of a search are invalid.
    """
    costs = budget.costs(plan.graph, plan.how.costs) if plan.cut.budget else None
    return {
        energy: annealing_runs.check_annealing(
            _search(question, plan.cut, energy),
            problem,
            first,
            densities=plan.shares,
            axis=axis,
            chains=question.chains,
            costs=costs,
        )
        for energy in question.energies
    }


def _name(energy: str, epochs: int) -> str:
    """The name of a search: `annealed`, `annealed_trainability`, `annealed_at_3`."""
    kind = "annealed" if energy == "fixed" else f"annealed_{energy}"
    return f"{kind}_at_{epochs}" if epochs else kind


def choice(
    name: str,
    found: FoundTicket,
    checked: annealing_runs.CheckedAnnealing,
    seeds: Sequence[Seed],
    dense: Dense,
) -> Choice:
    """The units that a search found for a seed. The small net starts from the initial weights."""
    space = checked.where.space
    parts = np.split(np.asarray(found.ticket), space.starts[1:])
    at = [one.number for one in seeds].index(found.seed.number)
    trained = take((dense.params, dense.stats), at)
    units = dict(zip(space.names, parts, strict=True))
    return Choice(name, found.density, seeds[at], trained[0], trained[1], units, found.said)


def shuffled(found: Choice, graph: Graph) -> Choice:
    """Random units with the layer counts of those that a search found."""
    method = f"{found.method}_shuffled"
    key = mask_key(found.seed, method, found.share)
    return found._replace(
        method=method, units=unit_selection.shuffled(key, graph, found.units), said={}
    )


def _search(
    question: Question, cut: CutSettings, energy: str
) -> annealed_settings.AnnealingSettings:
    """The settings of the annealing that minimises an energy."""
    base = thesis_search("cnn960") if question.search == "thesis" else {}
    asked = {
        "granularity": question.granularity,
        "scope": "layer" if cut.ranking == "by_layer" else "global",
        "floor": cut.floor,
        "energy": energy,
        "rescale": False,  # the small net is trained without rescaling
        **(POTENTIALS if question.granularity == "unit_fields" else {}),
        "steps": question.search_steps,
        "images": question.search_images,
        "train_steps": question.search_train_steps,
        "chunk": 20 if question.search_steps % 20 == 0 else question.search_steps,
    }
    return annealed_settings.AnnealingSettings(**{**base, **asked})


def _epochs(words: Sequence[str], most: int) -> list[int]:
    """The epochs after which masks are searched for, `most` at most; 0 is the initialisation."""
    for word in words:
        if word != INIT and not (word.isdecimal() and int(word)):
            raise UserError(f"--weights_from={word}: must be init, or a number of epochs above 0")
        if word != INIT and int(word) > most:
            raise UserError(f"--weights_from={word}: the training has only {most} whole epochs")
    return [0 if word == INIT else int(word) for word in words]


def _check_groups(graph: Graph, model: str) -> None:
    """Raises UserError if groups share units, since a shared unit would have several bits."""
    places = np.concatenate(list(graph.units.values()))
    if len(places) > len(np.unique(places)):
        said = "layers share units (padded shortcuts), which this search can't prune"
        raise UserError(f"--model={model}: {said}: choose another net, or structured_pruning")


def _read() -> list[Any]:
    """The settings of all groups: from explicit flags, then the preset, then the defaults."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    choose_name("preset", name, tuple(PRESETS))
    found = read_all(GROUPS, PRESETS[name])
    for energy in found[2].energies:
        choose_name("energy", energy, ENERGIES)
    if found[2].granularity == "unit_fields":
        if found[3].ranking != "over_layers" or found[3].multiple != 1:
            said = "it searches for the layer counts, so give --ranking=over_layers --multiple=1"
            raise UserError(f"--granularity=unit_fields: {said}")
    elif found[3].budget:
        said = "--budget: with --granularity=units a search keeps a share of the units"
        raise UserError(f"{said}: give --granularity=unit_fields, or --rates")
    return found


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: thesis or smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
