"""The methods of a comparison, their first masks and their moves, checked before work starts."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from experiments.harness import memory, moving_masks, packed_runs
from experiments.harness.moving_masks import ALLOCATIONS, Planned
from experiments.harness.problem import Problem
from experiments.harness.settings import MOST_STEPS, MOST_UNITS, choose, option
from experiments.harness.training_runs import steps_between_moves
from jaxtickets.dynamic.methods import INNERS, METHODS, Method
from jaxtickets.io.errors import UserError

DENSE = "dense"
"""The control whose mask keeps everything."""
UNIFORM = "static_uniform"
"""The control whose mask is random, with the same density in each layer, and never changes."""
NAMES = (DENSE, UNIFORM, *METHODS)
JOIN = "+"
"""Between a method and what makes its inner optimiser: `rigl+ham`."""


@dataclasses.dataclass(frozen=True)
class DynamicSettings:
    """How masks change."""

    move_every: int = option(
        0, "training steps between two moves; 0: those of an epoch", least=0, most=MOST_STEPS
    )
    allocation: str = option("erk", "counts of each layer, of methods that keep them", ALLOCATIONS)
    begin: float = option(
        0.5, "first density of granet, or --density if that is higher", above=0, most=1
    )
    rescale: bool = option(
        False, "multiply the first weights of a sparse layer by 1 / sqrt(its density)"
    )
    execution: str = packed_runs.execution("training steps of methods that only mask in them")
    alpha: float = option(1.0, "strength of the hyperbolic step of +ham", least=0, most=1e6)
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=MOST_UNITS)


class Named(NamedTuple):
    """A method with its inner optimiser.

    Attributes:
      name: as in `--methods`, such as `rigl+ham`.
      method: its facts; None for the dense control.
      inner: a name of `dynamic.methods.INNERS`; empty for the plain optimiser.
      allocation: the counts of each layer, in place of --allocation; empty for that.
    """

    name: str
    method: Method | None
    inner: str
    allocation: str = ""


def planned(one: Named, density: float, settings: DynamicSettings, problem: Problem) -> Planned:
    """How a method's mask begins and moves, see `moving_masks.planned`."""
    if one.method is None:
        return Planned(None, ())
    return moving_masks.planned(
        one.method,
        density,
        problem,
        steps_between(settings, problem),
        begin=settings.begin,
        spread=one.allocation or settings.allocation,
        floor=settings.floor,
    )


def find(name: str) -> Named:
    """The method that a name stands for.

    Raises:
      UserError: there is no such method.
    """
    method, _, inner = name.partition(JOIN)
    choose("method", method, NAMES)
    if inner:
        choose("method", inner, tuple(INNERS))
    if method == UNIFORM:
        return Named(name, METHODS["static"], inner, "uniform")
    return Named(name, None if method == DENSE else METHODS[method], inner)


def steps_between(settings: DynamicSettings, problem: Problem) -> int:
    """The training steps between two moves.

    Raises:
      UserError: an evaluation falls between two moves, or the training is shorter.
    """
    every = steps_between_moves(settings.move_every, problem)
    if problem.steps < 2 * every:
        raise UserError(
            f"--move_every={every}: a training of {problem.steps} steps is too short for a move"
        )
    return every


def check(
    methods: Sequence[Named],
    densities: Sequence[float],
    settings: DynamicSettings,
    problem: Problem,
    seeds: int,
) -> None:
    """Raises UserError if a training can't be done, before any work."""
    steps_between(settings, problem)
    if settings.execution == "sparse":
        packed_runs.check_perceptron(problem)
    number = len(densities) * seeds
    size = memory.training(problem.param_shapes)
    memory.check_memory(f"--density={','.join(map(str, densities))}", number, size, "trainings")
    for one in methods:
        for density in densities:
            try:
                planned(one, density, settings, problem)
            except ValueError as error:
                raise UserError(f"{one.name} at density {density:g}: {error}") from error
