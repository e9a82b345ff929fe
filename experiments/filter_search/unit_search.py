"""Searches for the units to keep: their settings, their checks, and what they find."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.harness import annealing_runs
from experiments.harness.annealed_settings import AnnealingSettings
from experiments.harness.annealing_runs import CheckedAnnealing
from experiments.harness.chain_runs import FoundTicket
from experiments.harness.dense_store import Dense
from experiments.harness.filter_cuts import Choice, CutPlan, CutSettings
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, mask_key, weighted
from experiments.harness.session import Session
from experiments.harness.settings import MOST_RUNS, MOST_STEPS, option
from experiments.harness.thesis_annealing import thesis_search
from jaxtickets import nets
from jaxtickets.compress import budget, unit_selection
from jaxtickets.compress.graph import Graph
from jaxtickets.io.errors import UserError
from jaxtickets.runs import Axis, take

INIT, ENERGIES = "init", ("fixed", "trainability")
POTENTIALS: dict[str, Any] = {
    "features": ("chance",),
    "mix": "1",
    "pooled": "",
    "size": 0.5,
    "size_end": 0.1,
}
"""Fields start flat, so with random units like the baseline. The sizes are those of
`sa_frontier`."""


@dataclasses.dataclass(frozen=True)
class Question:
    """How units are searched for. Each field is also a flag of the same name."""

    weights_from: tuple = option(
        (INIT,), "weights during the search: init, or the number of epochs after which to take them"
    )
    energies: tuple = option(
        ENERGIES,
        "energies to minimise, the loss of the untrained net or the loss after a few steps",
        ENERGIES,
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


def check_question(question: Question, cut: CutSettings) -> None:
    """Raises UserError if the search can't keep what is asked for."""
    if question.granularity == "unit_fields":
        if cut.ranking != "over_layers" or cut.multiple != 1:
            said = "it searches for the layer counts, so give --ranking=over_layers --multiple=1"
            raise UserError(f"--granularity=unit_fields: {said}")
    elif cut.budget:
        said = "--budget: with --granularity=units a search keeps a share of the units"
        raise UserError(f"{said}: give --granularity=unit_fields, or --rates")


def check_searches(
    question: Question, plan: CutPlan, problem: Problem, first: int, axis: Axis
) -> dict[str, CheckedAnnealing]:
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
    _epochs(question.weights_from, problem.steps // plan.epoch)
    _check_groups(plan.graph, nets.name_of(problem.net))
    costs = budget.costs(plan.graph, plan.selection.costs) if plan.cut.budget else None
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


def _search(question: Question, cut: CutSettings, energy: str) -> AnnealingSettings:
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
    return AnnealingSettings(**{**base, **asked})


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


def choices(
    session: Session,
    question: Question,
    plan: CutPlan,
    searches: dict[str, CheckedAnnealing],
    dense: Dense,
) -> list[Choice]:
    """The units that each search finds over each of the weights, and random ones beside them.

    Args:
      session: the net, its training, and the seeds with their initial weights.
      question: which weights masks select from, and whether there are random units.
      plan: the plan of the cuts.
      searches: see `check_searches`.
      dense: the trained dense nets.
    """
    problem, seeds, epoch = session.problem, session.seeds, plan.epoch
    made = []
    for number in _epochs(question.weights_from, problem.steps // epoch):
        kind = "trained" if number else INIT
        begun = session._replace(
            seeds=[weighted(problem, one, kind, number * epoch, session.data) for one in seeds]
        )
        for energy, checked in searches.items():
            name = _name(energy, number)
            found = annealing_runs.run_annealing(begun, name, checked, question.chains)
            own = [choice(name, one, checked, seeds, dense) for one in found]
            made += [*own, *(shuffled(one, plan.graph) for one in own if question.shuffled)]
    return made


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
    return Choice(name, found.density, seeds[at], trained[0], trained[1], units, found.columns)


def shuffled(found: Choice, graph: Graph) -> Choice:
    """Random units with the layer counts of those that a search found."""
    method = f"{found.method}_shuffled"
    key = mask_key(found.seed, method, found.share)
    return found._replace(
        method=method, units=unit_selection.shuffled(key, graph, found.units), columns={}
    )
