"""Finders: walks to a mask worth training, all under one budget; nothing dense is ever trained.

What they lower is the loss after training: a mask's net is trained for a few steps from the
initialisation and scored on held-out training images. The search goes by successive halving: many
chains begin with few training steps, and phase by phase the better half goes on with twice as many
(Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
2016). A finder says where its chains walk, where they begin, and what they accept.
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
FINDERS: dict[str, dict[str, Any]] = {
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
"""Settings of annealing over weights, by swaps that training steps speak for, from SNIP's mask and
from a random one; of annealing over fields, from random choice, from SNIP and from the Fisher
information at the initialisation (with what a weight's size and chance should count left to the
search); and of controls: hill climbing, annealing over the bits themselves, and random search,
which draws every mask anew."""
BURN_IN = 5
"""Neighbours that a phase's start temperature is estimated from."""
EVALUATIONS = 4
"""The number of evaluations on the validation data in a phase; a population may have more."""
POLISHED = {f"polished_{gate}": gate for gate in ("edge_popup", "gradual_edge_popup", "bernoulli")}
"""Gates' masks that informed swaps go on from, at the same counts: name -> gate."""
POLISH_IMAGES = 10_000
"""The most training images that a mask is polished on; never more than a fifth of them."""


class Polish(NamedTuple):
    """How a mask is polished, and the forward passes of one example that it costs at most."""

    settings: AnnealingSettings
    cost: int


def polish(budget: int, images: int, validation: int) -> Polish:
    """Annealing of an untrained net's loss by informed swaps, cold, that costs no more than this.

    A step costs an energy and, where it is accepted, a gradient: four forward passes of each image.

    Args:
      budget: forward passes of one example.
      images: training images that there are; a gate is to learn from those that aren't taken.
      validation: the number of images of a validation evaluation.

    Raises:
      ValueError: the budget doesn't pay for one step between two evaluations, or there are too few
        training images.
    """
    images = min(images // 5, POLISH_IMAGES)
    if images < 1:
        raise ValueError("polishing takes five training images at least")
    each = 4 * images
    fixed = (BURN_IN + 1) * each + EVALUATIONS * validation
    chunk = (budget - fixed) // (EVALUATIONS * each)
    if chunk < 1:
        least = fixed + EVALUATIONS * each
        raise ValueError(f"polishing takes {least} forward passes at least, {budget} are left")
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
    """A part of a search, planned from its budget.

    Attributes:
      chains: of each seed.
      train_steps: of the energy.
      steps: moves of each chain.
      chunk: the number of moves between two evaluations on the validation data.
      cost: forward passes of one example that all chains of a seed take.
    """

    chains: int
    train_steps: int
    steps: int
    chunk: int
    cost: int


def alone(finder: str) -> bool:
    """Whether a search is one chain in one phase: what it learns it learns step by step."""
    return FINDERS[finder].get("proposal") == "trained"


def children(finder: str) -> float:
    """Of a population, the share that begins anew after each generation; 0 if there is none."""
    return FINDERS[finder].get("replaced", 0.0)


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
    born: float = 0.0,
) -> list[Phase]:
    """Phases that together cost no more than the budget, each an equal part of it.

    Args:
      budget: forward passes of one example for a seed.
      count: of phases.
      most: chains of the first phase; each has half of those before it, rounded up.
      train_steps: of the first phase; each has twice as many.
      batch: examples of a training step.
      held_out, validation: examples that trained nets are scored on.
      begin: forward passes that a chain's first point takes, see `beginning`.
      graded: whether a step takes the gradient on what is held out; the start temperature is then
        not estimated.
      born: of a population, see `children`: a generation is a step, a look, and the children, each
        at the cost of an energy.

    Raises:
      ValueError: the budget doesn't pay for one step between two evaluations in each phase.
    """
    made = []
    for i in range(count):
        many, steps = -(-most // 2**i), train_steps * 2**i
        training = training_cost(steps * batch)
        each = training + (training_cost(held_out) if graded else held_out)
        evaluation = training + validation
        first = (1 if graded else 1 + BURN_IN) * each + (begin if i == 0 else 0)
        new = each * replaced_count(born, many) if born else 0
        chunk, chunks = 1, EVALUATIONS
        if born:
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
        made.append(Phase(many, steps, chunks * chunk, chunk, cost))
    return made


def settings(finder: str, phase: Phase, held_out: int, floor: int) -> AnnealingSettings:
    """The settings of a finder's phase.

    Args:
      finder: its name.
      phase: the plan.
      held_out: training images that trained nets are scored on.
      floor: the least that a layer keeps.
    """
    return AnnealingSettings(
        **FINDERS[finder],
        steps=phase.steps,
        chunk=phase.chunk,
        train_steps=phase.train_steps,
        images=held_out,
        burn_in=BURN_IN,
        floor=floor,
    )


def beginning(finder: str, examples: int, classes: int) -> int:
    """Forward passes of one example that a chain's features and first point take.

    A criterion costs what its scores do for each place where it stands.

    Args:
      finder: its name.
      examples, classes: that criteria look at.
    """
    made = AnnealingSettings(**FINDERS[finder])
    looked = (*made.features, made.pooled) if made.granularity == "fields" else (made.start,)
    named = [find(name) for name in looked if name not in ("", CHANCE)]
    return sum(forward_passes(criterion, examples, classes) for criterion in named)


def survivors(scores: np.ndarray, groups: np.ndarray, many: int) -> np.ndarray:
    """int`[groups · many]`: the chains of the lowest scores in each group, best first.

    Args:
      scores: `[chains]`, such as held-out losses.
      groups: int`[chains]`: which group a chain is of.
      many: how many of each group go on.
    """
    chosen = []
    for group in dict.fromkeys(groups.tolist()):
        mine = np.flatnonzero(groups == group)
        chosen.append(mine[np.argsort(scores[mine], kind="stable")][:many])
    return np.concatenate(chosen)
