"""The settings of the rebuilding, and the coefficients of each construction."""

import dataclasses
import math

from experiments.harness.settings import MOST_UNITS, option
from experiments.strong_tickets import theory
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.strong_tickets import CONSTRUCTIONS

Sizes = dict[str, tuple[int, ...]]
"""Construction -> numbers of coefficients a weight."""


@dataclasses.dataclass(frozen=True)
class StrongSettings:
    """What is rebuilt of what. Each field is also a flag of the same name."""

    constructions: tuple = option(
        ("pensia", "orseau", "malach"), "how weights are made of coefficients", tuple(CONSTRUCTIONS)
    )
    coefficients: tuple = option(
        (8, 12, 21),
        "random coefficients a weight in rebuilt nets; empty: what --epsilon needs by theory",
        least=1,
        most=MOST_UNITS,
        empty=True,
    )
    epsilon: float = option(
        0.01, "precision; the share of the weights within it is counted", above=0, below=1
    )
    curve: tuple = option(
        (1, 2, 4, 6, 8, 12, 16, 21, 32, 64, 128, 256, 512, 1024, 4096),
        "random coefficients a weight in the curve of errors; empty: no curve",
        least=1,
        most=MOST_UNITS,
        empty=True,
    )
    sample: int = option(
        2048, "weights of a net on which the curve's errors are measured", least=1, most=10**7
    )


def rebuilt_sizes(settings: StrongSettings, weights: int) -> Sizes:
    """The coefficients with which each construction rebuilds a net of so many weights.

    Raises:
      UserError: a construction can't use as many coefficients, or can't be as precise.
    """
    numbers = whole("coefficients", settings.coefficients)
    if not numbers:
        return {
            name: (_needed(name, settings.epsilon, weights),) for name in settings.constructions
        }
    for name in settings.constructions:
        most = CONSTRUCTIONS[name].most or math.inf
        if max(numbers) > most:
            raise UserError(f"--coefficients={max(numbers)}: {name} takes at most {most}")
    return dict.fromkeys(settings.constructions, numbers)


def _needed(name: str, epsilon: float, weights: int) -> int:
    n = theory.THEORIES[name].needed(epsilon, weights)
    most = CONSTRUCTIONS[name].most or MOST_UNITS
    if n > most:
        raise UserError(
            f"--epsilon={epsilon:g} is out of reach: {name} needs {n} coefficients a weight, and "
            f"takes at most {most}"
        )
    return n


def curve_sizes(settings: StrongSettings) -> Sizes:
    """The coefficients at which each construction's errors are measured."""
    numbers = whole("curve", settings.curve)
    return {
        name: tuple(n for n in numbers if n <= (CONSTRUCTIONS[name].most or math.inf))
        for name in settings.constructions
    }


def whole(name: str, values: tuple) -> tuple[int, ...]:
    """The whole numbers of a list in rising order.

    Raises:
      UserError: an item isn't whole.
    """
    if any(value != int(value) for value in values):
        raise UserError(f"--{name}={','.join(f'{v:g}' for v in values)}: must be whole numbers")
    return tuple(sorted(int(value) for value in values))
