"""Presets of searches for a mask, all within one budget. No search trains a dense net.

The energy is the loss after training: the net of a mask is trained for a few steps from the
initialisation and scored on held-out training images. The search is a successive halving: it starts
with many chains and few training steps, and in each phase the better half of the chains continues
with twice the training steps (Jamieson and Talwalkar, "Non-stochastic best arm identification and
hyperparameter optimization", 2016). A preset sets the domain of the chains, their first points, and
their rule of acceptance.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.harness.annealed_settings import AnnealingSettings
from jaxtickets.criteria import find, forward_passes
from jaxtickets.search.energies import training_cost
from jaxtickets.search.fields import CHANCE
from jaxtickets.search.interacting_chains import replaced_count

ENERGY: dict[str, Any] = {"energy": "trainability", "rescale": False, "burn_in_accept": 0.2}
FIELDS: dict[str, Any] = {**ENERGY, "granularity": "fields", "size": 0.5, "size_end": 0.1}
BITS: dict[str, Any] = {**ENERGY, "granularity": "weights", "allocation": "erk"}
REWIRED: dict[str, Any] = {
    **ENERGY,
    "proposal": "trained",
    "accept": "always",
    "temperature": 1.0,
    "start": "snip",
    "scope": "global",
    "allocation": "global",
    "size": 0.3,
    "size_end": 0.01,
}
SEARCH_PRESETS: dict[str, dict[str, Any]] = {
    "annealed_fields": FIELDS,
    "annealed_snip": {**FIELDS, "features": ("snip",), "mix": "1", "pooled": ""},
    "annealed_fisher": {
        **FIELDS,
        "features": ("fisher", "large_init", "chance"),
        "mix": "1,0,0",
        "pooled": "",
    },
    "rewired": REWIRED,
    "rewired_erk": {**REWIRED, "start": "", "allocation": "erk"},
    "climbed_fields": {**FIELDS, "accept": "greedy"},
    "annealed_bits": {**BITS, "size": 0.1, "size_end": 0.001},
    "random_search": {**BITS, "accept": "greedy", "proposal": "anew"},
    "genetic": {
        **BITS,
        "accept": "greedy",
        "size": 0.02,
        "sizes": "constant",
        "interaction": "crossover",
        "replaced": 0.5,
    },
}
"""Name -> settings of a search.

- `annealed_fields`, `annealed_snip` and `annealed_fisher` anneal fields, from random scores, from
  SNIP and from the Fisher information at the initialisation. The last one also searches for the
  weight of magnitude and of chance.
- `rewired` and `rewired_erk` swap weights by the gradient after a short training, from SNIP's mask
  and from a random one.
- Controls: `climbed_fields` is hill climbing, `annealed_bits` anneals the bits themselves,
  `random_search` draws every mask independently, and `genetic` evolves a population.
"""
BURN_IN = 5
"""The number of neighbours from which the start temperature of a phase is estimated."""
EVALUATIONS = 4
"""The number of evaluations on the validation data in a phase; a population may have more."""
POLISHED = {f"polished_{gate}": gate for gate in ("edge_popup", "gradual_edge_popup", "bernoulli")}
"""Name -> the gate whose masks informed swaps improve, with the same counts."""
POLISH_IMAGES = 10_000
"""The most training images that a mask is polished on; never more than a fifth of them."""


class Polish(NamedTuple):
    """A search that improves a given mask.

    Attributes:
      settings: the search.
      cost: the most forward passes of one example that it takes.
    """

    settings: AnnealingSettings
    cost: int


def polish(budget: int, images: int, validation: int) -> Polish:
    """A cold annealing of the untrained net's loss by informed swaps, within a budget.

    A step costs an energy and, if it is accepted, a gradient: four forward passes of each image.

    Args:
      budget: the most forward passes of one example.
      images: the number of training images. A fifth of them, or `POLISH_IMAGES`, are used here; the
        gate must learn from the others.
      validation: the number of images of a validation evaluation.

    Raises:
      ValueError: the budget doesn't pay for one step between two evaluations, or there are too few
        training images.
    """
    images = min(images // 5, POLISH_IMAGES)
    if images < 1:
        raise ValueError("polishing needs at least 5 training images")
    each = 4 * images
    fixed = (BURN_IN + 1) * each + EVALUATIONS * validation
    chunk = (budget - fixed) // (EVALUATIONS * each)
    if chunk < 1:
        least = fixed + EVALUATIONS * each
        raise ValueError(f"polishing needs at least {least} forward passes, {budget} are left")
    settings = AnnealingSettings(
        proposal="informed",
        rescale=False,
        images=images,
        size=0.005,
        size_end=0.0002,
        steps=EVALUATIONS * chunk,
        chunk=chunk,
        burn_in=BURN_IN,
        burn_in_accept=0.01,
    )
    return Polish(settings, fixed + EVALUATIONS * chunk * each)


class Phase(NamedTuple):
    """A phase of a search, planned from the budget.

    Attributes:
      chains: the number of chains of each seed.
      train_steps: the number of training steps of the energy.
      steps: the number of moves of each chain.
      chunk: the number of moves between two evaluations on the validation data.
      cost: the forward passes of one example that all chains of a seed take.
    """

    chains: int
    train_steps: int
    steps: int
    chunk: int
    cost: int


def single_chain(preset: str) -> bool:
    """Whether the search is a single chain in a single phase, as trained swaps need."""
    return SEARCH_PRESETS[preset].get("proposal") == "trained"


def replaced_share(preset: str) -> float:
    """The share of a population that each generation replaces; 0 if chains are independent."""
    return SEARCH_PRESETS[preset].get("replaced", 0.0)


def phases(
    budget: int,
    count: int,
    most: int,
    train_steps: int,
    batch: int,
    held_out: int,
    validation: int,
    begin: int = 0,
    graded: bool = False,
    replaced: float = 0.0,
) -> list[Phase]:
    """Plans phases of equal cost, which together cost at most the budget.

    Args:
      budget: the most forward passes of one example for a seed.
      count: the number of phases.
      most: the number of chains in the first phase; each later phase has half as many, rounded up.
      train_steps: the training steps of the energy in the first phase; each later phase has twice
        as many.
      batch: the number of examples in a training step.
      held_out, validation: the numbers of examples on which trained nets are scored.
      begin: the forward passes of a chain's first point, see `start_cost`.
      graded: whether each step takes a gradient on the held-out examples. The start temperature is
        then not estimated.
      replaced: the share of a population that is replaced, see `replaced_share`. A generation is
        then a step, an evaluation, and the children, each of which costs an energy.

    Raises:
      ValueError: the budget doesn't pay for one step between two evaluations in each phase.
    """
    planned = []
    for i in range(count):
        many, steps = -(-most // 2**i), train_steps * 2**i
        training = training_cost(steps * batch)
        each = training + (training_cost(held_out) if graded else held_out)
        evaluation = training + validation
        first = (1 if graded else 1 + BURN_IN) * each + (begin if i == 0 else 0)
        new = each * replaced_count(replaced, many) if replaced else 0
        chunk, chunks = 1, EVALUATIONS
        if replaced:
            chunks = (budget // count - many * first + new) // (many * (each + evaluation) + new)
        else:
            chunk = (budget // count // many - first - chunks * evaluation) // (chunks * each)
        if chunk < 1 or chunks < EVALUATIONS:
            cost = many * (first + EVALUATIONS * (each + evaluation)) + (EVALUATIONS - 1) * new
            least = count * cost
            raise ValueError(
                f"a budget of {budget} forward passes is too small for {count} phases of {most} "
                f"chains and {train_steps} training steps: {least} at least"
            )
        cost = many * (first + chunks * (chunk * each + evaluation)) + (chunks - 1) * new
        planned.append(Phase(many, steps, chunks * chunk, chunk, cost))
    return planned


def settings(preset: str, phase: Phase, held_out: int, floor: int) -> AnnealingSettings:
    """The settings of a phase of a search.

    Args:
      preset: a name in `SEARCH_PRESETS`.
      phase: the phase's plan.
      held_out: the number of training images on which trained nets are scored.
      floor: the least number of weights kept in each layer.
    """
    return AnnealingSettings(
        **SEARCH_PRESETS[preset],
        steps=phase.steps,
        chunk=phase.chunk,
        train_steps=phase.train_steps,
        images=held_out,
        burn_in=BURN_IN,
        floor=floor,
    )


def start_cost(preset: str, examples: int, classes: int) -> int:
    """The cost of a chain's features and first point, in forward passes of one example.

    A criterion that is used in several places is counted in each.

    Args:
      preset: a name in `SEARCH_PRESETS`.
      examples, classes: the number of examples that criteria see, and of the net's classes.
    """
    search = AnnealingSettings(**SEARCH_PRESETS[preset])
    fields = search.granularity == "fields"
    names = (*search.features, search.pooled) if fields else (search.start,)
    criteria = [find(name) for name in names if name not in ("", CHANCE)]
    return sum(forward_passes(criterion, examples, classes) for criterion in criteria)


def survivors(scores: np.ndarray, groups: np.ndarray, many: int) -> np.ndarray:
    """int`[groups · many]`: the indices of each group's chains with the lowest scores, best first.

    Args:
      scores: float`[chains]`, such as held-out losses.
      groups: int`[chains]`, the group of each chain.
      many: the number of chains of each group that continue.
    """
    chosen = []
    for group in dict.fromkeys(groups.tolist()):
        members = np.flatnonzero(groups == group)
        chosen.append(members[np.argsort(scores[members], kind="stable")][:many])
    return np.concatenate(chosen)
