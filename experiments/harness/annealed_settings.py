"""The settings of a search over masks, and the checks of their values and combinations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.harness.named_parts import takes
from experiments.harness.settings import MOST_FACTOR, MOST_STEPS, option
from experiments.harness.settings import check as check_options
from jaxtickets.allocation import ALLOCATIONS
from jaxtickets.criteria import find
from jaxtickets.recipes.search_domain import GRANULARITIES, POTENTIALS
from jaxtickets.recipes.search_energies import ENERGIES
from jaxtickets.recipes.search_proposals import PROPOSALS
from jaxtickets.recipes.search_schedules import SIZES, TEMPERATURES
from jaxtickets.search import (
    energies,
    fields,
)
from jaxtickets.search import space as spaces
from jaxtickets.search.acceptance import ACCEPTANCES
from jaxtickets.search.interacting_chains import INTERACTIONS

EVALUATIONS = ("auto", "plain", "difference")
_SHARE = "a number, or a share of the ones if below 1; 0: all; for fields nats"


@dataclass(frozen=True)
class AnnealingSettings:
    """The settings of a search; each field is also a flag of the same name."""

    granularity: str = option(
        "weights", "what chains walk on: bits, or fields of potentials over them", GRANULARITIES
    )
    scope: str = option(
        "layer", "with bits: the segments whose number of ones is kept", spaces.SCOPES
    )
    group: int = option(
        4, "with patterns: inputs per group; a share `density` of each is kept", least=2, most=10**6
    )
    allocation: str = option(
        "uniform",
        "how the counts of the first mask are distributed over layers",
        tuple(ALLOCATIONS),
    )
    start: str = option("", "with weights: criterion of the first mask; empty: random bits")
    floor: int = option(1, "least number of ones in each layer", least=0, most=10**9)
    features: tuple = option(
        (fields.CHANCE, "large_init"),
        "with fields: the features of a potential, chance and criteria",
    )
    mix: str = option("1,1", "with fields: first coefficient of each feature")
    pooled: str = option(
        "snip", "criterion whose pooled scores are the first field; empty: a flat field"
    )
    sides: tuple = option(
        ("input",), "with fields of weights: the sides of a kernel that have potentials", empty=True
    )
    steps: int = option(500, "steps of each chain", least=1, most=MOST_STEPS)
    chunk: int = option(
        20, "steps between two evaluations on the validation data", least=1, most=10**6
    )
    proposal: str = option(
        "swaps",
        "how swaps are proposed: at random, by a gradient or by a training; or new masks",
        tuple(PROPOSALS),
    )
    candidates: int = option(
        2000, "random pairs that informed swaps are chosen from", least=1, most=10**9
    )
    size: float = option(0.1, f"ones that the first swap turns off: {_SHARE}", least=0, most=1e9)
    size_end: float = option(
        0.001,
        f"ones that the last swap turns off, with --sizes=geometric: {_SHARE}",
        least=0,
        most=1e9,
    )
    sizes: str = option("geometric", "how the swap size changes", tuple(SIZES))
    target: float = option(0.25, "acceptance rate that adaptive sizes aim at", above=0, most=1)
    energy: str = option("fixed", "the energy of a mask", tuple(ENERGIES))
    images: int = option(
        250, "training images that the energy is computed on; 0: all", least=0, most=10**9
    )
    measure: str = option(
        "cross_entropy", "the measure that the energy is", tuple(energies.MEASURES)
    )
    evaluation: str = option(
        "auto", "how the first layer is evaluated: in full, or only what swaps change", EVALUATIONS
    )
    rescale: bool = option(True, "divide kept weights by sqrt(layer density)")
    train_steps: int = option(
        20, "masked training steps of the trainability energy", least=1, most=10**6
    )
    accept: str = option("metropolis", "acceptance rule", tuple(ACCEPTANCES))
    running_start: float = option(
        0.0,
        "first value of the mean of --accept=running_mean; 0: the first energy",
        least=0,
        most=1e30,
    )
    temperature: float = option(
        0.0,
        "start temperature, in units of the energy; 0: estimated by a burn-in",
        least=0,
        most=1e30,
    )
    temperature_ratio: float = option(
        0.01, "end temperature over start temperature", above=0, most=1
    )
    temperatures: str = option("geometric", "how the temperature falls", tuple(TEMPERATURES))
    cooling: float = option(
        0.999,
        "temperature of a level over that before, with --temperatures=levels",
        above=0,
        most=1,
    )
    level_first: float = option(1.0, "steps of the first level", least=1, most=1e8)
    level_growth: float = option(
        1.005, "steps of a level over those of the level before", least=1, most=MOST_FACTOR
    )
    level_most: float = option(50.0, "most steps of a level", least=1, most=1e8)
    reheat: int = option(
        0, "steps after which the temperature starts again; 0: never", least=0, most=MOST_STEPS
    )
    burn_in: int = option(
        10, "random neighbours from which the start temperature is estimated", least=1, most=10**6
    )
    burn_in_accept: float = option(
        0.05, "share of worse neighbours that the start temperature accepts", above=0, most=1
    )
    tabu: int = option(0, "number of recent masks that are not proposed again", least=0, most=10**6)
    tries: int = option(
        20, "swaps drawn until one leads to a mask that is not tabu", least=1, most=10**6
    )
    interaction: str = option(
        "none", "how the chains of a seed interact after a chunk", tuple(INTERACTIONS)
    )
    ladder: float = option(
        10.0, "with exchange: highest temperature over lowest", least=1, most=1e9
    )
    replaced: float = option(
        0.25, "with crossover and restart: share of chains that are replaced", above=0, most=1
    )


def mix_of(settings: AnnealingSettings) -> tuple[float, ...]:
    """The numbers that `settings.mix` lists.

    Raises:
      ValueError: `settings.mix` is not a list of numbers.
    """
    try:
        return tuple(float(word) for word in settings.mix.split(","))
    except ValueError:
        raise ValueError(f"mix={settings.mix}: must be numbers, such as 1,0.5") from None


def in_words(settings: AnnealingSettings) -> str:
    """A short description of a search for tables."""
    measure, steps = settings.measure.replace("_", "-"), settings.train_steps
    goal = ENERGIES[settings.energy].words.format(measure=measure, train_steps=steps)
    moved = settings.granularity in POTENTIALS
    proposal = "random steps of potentials" if moved else PROPOSALS[settings.proposal].words
    return f"{settings.granularity.replace('_', ' ')}, {proposal}, {goal}"


Needs = Mapping[str, tuple[Any, ...]]
"""Setting -> the values of which it must have one."""
DIFFERENCE: Needs = {
    "granularity": ("weights",),
    "energy": ("fixed",),
    "proposal": ("swaps",),
    "scope": (spaces.GLOBAL, spaces.LAYER),
}
"""The settings that evaluation by differences needs."""
_PATTERN: Needs = {
    "granularity": ("weights",),
    "proposal": ("swaps",),
    "tabu": (0,),
    "allocation": ("uniform",),
}
NEEDS: Mapping[str, Mapping[str, Needs]] = {
    "energy": {name: energy.needs for name, energy in ENERGIES.items()},
    "proposal": {name: proposal.needs for name, proposal in PROPOSALS.items()},
    "scope": {spaces.PATTERN: _PATTERN},
    "evaluation": {"difference": DIFFERENCE},
    "interaction": {name: {"accept": ("metropolis",)} for name in ("exchange", "population")},
}
"""Setting -> value -> the other settings that a search with that value needs."""


def unmet(settings: AnnealingSettings, needs: Needs) -> str:
    """The first need that the settings do not meet, such as `tabu=0`; empty if they meet all."""
    for other, values in needs.items():
        if getattr(settings, other) not in values:
            return f"{other}={' or '.join(map(str, values))}"
    return ""


def check_search(settings: AnnealingSettings) -> None:
    """Raises ValueError, in one line, if a setting has a value that it can't have."""
    check_options(settings)
    if settings.steps % settings.chunk:
        raise ValueError(f"steps={settings.steps}: must be a multiple of chunk={settings.chunk}")
    for name, values in NEEDS.items():
        _check_needs(settings, name, values.get(getattr(settings, name), {}))
    if settings.start:
        try:
            find(settings.start)
        except ValueError as error:
            raise ValueError(f"start: {error}") from error
        _check_needs(settings, "start", {"granularity": ("weights",)})
    if settings.granularity in POTENTIALS:
        if not settings.size > 0 < settings.size_end:
            raise ValueError(f"size={settings.size}: fields move by nats, above 0")
        if settings.sizes == "sawtooth" or settings.tabu:
            domain = f"granularity={settings.granularity}"
            raise ValueError(f"{domain}: has no sawtooth of sizes, and no tabu")
        if settings.granularity == "unit_fields" and not settings.floor:
            raise ValueError("granularity=unit_fields: needs floor=1, or layers may be emptied")
        if len(mix_of(settings)) != len(settings.features):
            raise ValueError(f"mix={settings.mix}: one number for each of the features")
        if settings.pooled:
            find(settings.pooled)
    if settings.interaction != "none":
        _check_interaction(settings)
    if settings.burn_in_accept == 1:
        raise ValueError("burn_in_accept=1.0: below 1, or the start temperature is infinite")


def _check_interaction(settings: AnnealingSettings) -> None:
    name = f"interaction={settings.interaction}"
    if ENERGIES[settings.energy].fresh or PROPOSALS[settings.proposal].fresh:
        raise ValueError(
            f"{name}: compares energies, and with energy=minibatch or proposal=trained each is of "
            "other images"
        )
    if settings.granularity in POTENTIALS:
        domain = f"granularity={settings.granularity}"
        raise ValueError(f"{name}: compares masks, and with {domain} chains draw others")
    if settings.steps == settings.chunk:
        raise ValueError(
            f"{name}: chains interact between chunks, so --chunk must be less than --steps"
        )
    uses = takes(INTERACTIONS[settings.interaction])
    if "ladder" in uses and not 1 < settings.ladder < math.inf:
        raise ValueError(f"ladder={settings.ladder}: a ratio of temperatures, above 1")
    if settings.interaction == "population" and settings.temperatures == "constant":
        raise ValueError(f"{name}: resamples as it cools, and temperatures=constant doesn't")
    if "replaced" in uses and not 0 < settings.replaced < 1:
        raise ValueError(f"replaced={settings.replaced}: a share of the chains, in (0, 1)")


def _check_needs(settings: AnnealingSettings, name: str, needs: Needs) -> None:
    if need := unmet(settings, needs):
        raise ValueError(f"{name}={getattr(settings, name)}: needs {need}")
