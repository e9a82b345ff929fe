"""The settings of the comparison, and the levels at which they train a method."""

import dataclasses

from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_UNITS, option
from experiments.learned_sparsity.methods import CONTROLS, LEARNED, NAMES, USUAL


@dataclasses.dataclass(frozen=True)
class LearnSettings:
    """The methods, and how strongly they prune. Each field is also a flag of the same name."""

    methods: tuple = option(USUAL, "methods beside the dense net", NAMES)
    strengths: tuple = option(
        (),
        "strengths of methods that learn their density; empty: each method's own",
        least=0,
        most=MOST_FACTOR,
    )
    published: bool = option(
        False,
        "the papers' strengths, and gates that learn at the weights' rate, for long trainings",
    )
    density: tuple = option(
        (),
        "kept fractions of the weights, for all methods; empty: what each method's own threshold "
        "keeps",
        above=0,
        below=1,
    )
    control_density: tuple = option(
        (0.1, 0.05, 0.02, 0.01),
        "kept fractions of methods that learn none, without --density",
        above=0,
        below=1,
    )
    floor: int = option(
        1, "minimum number of weights that a layer keeps at a density", least=0, most=MOST_UNITS
    )
    gate_rate: float = option(
        0.0,
        "learning rate of gates' parameters without an optimiser of their own, as a multiple of "
        "--learning_rate; 0: each method's own multiple",
        least=0,
        most=MOST_FACTOR,
    )
    retrain_epochs: int = option(
        0, "epochs in which what is left is trained alone", least=0, most=MOST_EPOCHS
    )
    retrain_rate: float = option(
        0.1,
        "learning rate of this training, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    repeats: int = option(
        100, "number of timed calls; a net's latency is their median", least=1, most=10**6
    )


def densities_of(settings: LearnSettings) -> tuple[float, ...]:
    """The densities at which a method is trained that has no threshold of its own."""
    return tuple(settings.density or settings.control_density)


def levels_of(name: str, settings: LearnSettings) -> list[tuple[float | None, float | None]]:
    """The strengths of a learned method, or the densities of a control: `(strength, density)`."""
    if name in CONTROLS:
        return [(None, density) for density in densities_of(settings)]
    facts = LEARNED[name].facts
    own = facts.published if settings.published else facts.strengths
    return [(strength, None) for strength in settings.strengths or own]


def gate_rate_of(settings: LearnSettings) -> float:
    """The gates' rate as a multiple of the weights'; 0: each method's own multiple."""
    return settings.gate_rate or float(settings.published)


def is_warm(name: str) -> bool:
    """Whether a method starts from trained dense nets."""
    return CONTROLS[name].warm if name in CONTROLS else LEARNED[name].facts.warm


def is_iterative(name: str) -> bool:
    """Whether a method's densities are levels of iterative pruning."""
    return name in CONTROLS and CONTROLS[name].iterative
