"""The settings of the pipeline, and what they can't be."""

import dataclasses
from collections.abc import Sequence

from experiments.compression.methods import ITERATED, MOVERS, NAMES
from experiments.harness import memory, moving_masks, packed_runs
from experiments.harness.problem import Problem, shorter
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_UNITS, option
from experiments.harness.training_runs import steps_between_moves
from experiments.harness.training_settings import TrainSettings
from jaxtickets import allocation, masks
from jaxtickets.compress.clustering import STARTS
from jaxtickets.compress.entropy_coding import SYMBOL_CODERS
from jaxtickets.compress.position_coding import POSITION_CODERS
from jaxtickets.io.errors import UserError

DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True)
class CompressSettings:
    """The stages of the pipeline. Each field is also a flag of the same name."""

    methods: tuple = option(("iterative_magnitude", "exact_obs", "granet"), "ways to prune", NAMES)
    density: tuple = option((0.1, 0.03), "kept fractions of the weights", above=0, below=1)
    rounds: int = option(
        3, "cuts of iterative methods, each followed by a retraining", least=1, most=1000
    )
    retrain_epochs: int = option(
        5, "epochs of a retraining after a cut; 0: none", least=0, most=MOST_EPOCHS
    )
    retrain_rate: float = option(
        0.3,
        "learning rate of a retraining, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    move_epochs: int = option(
        0,
        "epochs of methods that prune while they train; 0: as of dense nets",
        least=0,
        most=MOST_EPOCHS,
    )
    alpha: float = option(1.0, "strength of the hyperbolic step of +ham", least=0, most=1e6)
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=MOST_UNITS)
    execution: str = packed_runs.execution("training steps of pruned nets")
    levels: tuple = option(
        (16,),
        "shared values of each leaf; empty: the pipeline ends with pruning",
        least=2,
        most=2**16,
        empty=True,
    )
    quantiser: str = option("optimal", "start of the k-means that finds them", tuple(STARTS))
    codebook: str = option("float16", "type that they are rounded to", DTYPES)
    share_epochs: int = option(
        3, "epochs in which shared values are trained; 0: none", least=0, most=MOST_EPOCHS
    )
    share_rate: float = option(
        3e-4, "learning rate of this training, by Adam", above=0, most=MOST_FACTOR
    )
    positions: str = option(
        "learned", "code of positions in the last stage", tuple(POSITION_CODERS)
    )
    symbols: str = option("range", "code of symbols in the last stage", tuple(SYMBOL_CODERS))
    repeats: int = option(
        100, "timed calls, of which latency is the median; 0: none", least=0, most=10**6
    )


def keep_of(problem: Problem, density: float, floor: int) -> int:
    """The number of prunable weights that a density keeps."""
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    return allocation.global_(shapes, density, floor)


def moving_problem(problem: Problem, settings: CompressSettings, train: TrainSettings) -> Problem:
    """The problem with the training of methods that prune while they train."""
    return shorter(problem, train, settings.move_epochs, 1.0) if settings.move_epochs else problem


def check(settings: CompressSettings, train: TrainSettings, problem: Problem, seeds: int) -> None:
    """Raises UserError if a stage can't be done, before any work."""
    if settings.execution == "sparse":
        packed_runs.check_perceptron(problem)
    size = memory.training(problem.param_shapes)
    number = max(1, len(settings.levels)) * len(settings.density) * seeds
    memory.check_memory(f"--density={_words(settings.density)}", number, size, "trainings")
    for levels in settings.levels:
        if levels != int(levels):
            raise UserError(f"--levels={levels:g}: must be a whole number")
    for name in settings.methods:
        if name in ITERATED and not settings.retrain_epochs:
            raise UserError(f"--retrain_epochs=0: the rounds of {name} need epochs")
    for density in settings.density:
        _check_density(density, settings, train, problem)


def _check_density(
    density: float, settings: CompressSettings, train: TrainSettings, problem: Problem
) -> None:
    try:
        keep = keep_of(problem, density, settings.floor)
    except ValueError as error:
        raise UserError(f"--density={density:g}: {error}") from error
    if settings.levels and max(settings.levels) > keep:
        raise UserError(
            f"--levels={_words(settings.levels)}: density {density:g} keeps {keep} weights, fewer "
            "than shared values"
        )
    moving = moving_problem(problem, settings, train)
    every = steps_between_moves(0, moving)
    for name in settings.methods:
        if name in MOVERS:
            method = MOVERS[name].method
            try:
                moving_masks.planned(method, density, moving, every, floor=settings.floor)
            except ValueError as error:
                raise UserError(f"{name} at density {density:g}: {error}") from error


def _words(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
