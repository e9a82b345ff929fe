"""Iterative pruning: its settings, how many weights each level keeps, and the levels' plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.harness.lineages import Descent, LevelPlan, Lineage
from experiments.harness.problem import Problem
from experiments.harness.seeds import evidence
from experiments.harness.settings import check, option
from jaxtickets import allocation, criteria, masks, nets
from jaxtickets.keys import stream
from jaxtickets.recipes import imp
from jaxtickets.recipes.imp import REWINDS
from jaxtickets.types import Dataset, Keep, Mask

SCOPES = ("layer", "global")


@dataclass(frozen=True)
class ImpSettings:
    """The pruning procedure. Each field is also a flag of the same name."""

    levels: int = option(7, "number of pruning levels; 1: one-shot", least=1, most=1000)
    prune_rate: float = option(
        0.4, "fraction of a layer's remaining weights that a level prunes", above=0, below=1
    )
    conv_rate: float = option(0.0, "--prune_rate of convolutions; 0: the same", least=0, below=1)
    output_rate: float = option(
        0.2, "--prune_rate of the output layer; 0: the same", least=0, below=1
    )
    scope: str = option(
        "layer", "rank weights within each layer, or all together (by --prune_rate alone)", SCOPES
    )
    floor: int = option(
        1, "minimum number of weights that a layer keeps, with --scope=global", least=0, most=10**9
    )
    criterion: str = option(
        "magnitude", "pruning criterion; the lowest scores are pruned", tuple(criteria.CRITERIA)
    )
    rewind: str = option(
        "weights",
        "what is rewound: the weights and the learning rate, only the rate, or nothing",
        REWINDS,
    )
    rewind_step: str = option(
        "0", "step to rewind to: 500, 0.01 (fraction of the training) or 2ep (epochs)"
    )


def rates(
    settings: ImpSettings, shapes: Mapping[str, tuple[int, ...]], output: str
) -> dict[str, float]:
    """Path -> the fraction of the leaf's remaining weights that a level prunes.

    Args:
      settings: the rates.
      shapes: path -> shape of each prunable leaf. A leaf with four axes is a convolution.
      output: the output layer's name.
    """

    def rate(path: str, shape: tuple[int, ...]) -> float:
        special = settings.conv_rate if len(shape) == 4 else 0.0
        if path.startswith(f"{output}/"):
            special = settings.output_rate
        return special or settings.prune_rate

    return {path: rate(path, shape) for path, shape in shapes.items()}


def keep_counts(
    settings: ImpSettings,
    shapes: Mapping[str, tuple[int, ...]],
    output: str,
    classes: int,
    level: int,
) -> Keep:
    """The number of weights kept after `level` levels: one for each leaf, or one for all leaves.

    Args:
      settings: the pruning procedure.
      shapes, output: see `rates`.
      classes: the number of classes.
      level: the level.

    Raises:
      ValueError: a layer would keep no weight, or the output layer fewer than `classes`.
    """
    if settings.scope == "global":
        return allocation.global_(shapes, (1 - settings.prune_rate) ** level, settings.floor)
    least = {path: classes if path.startswith(f"{output}/") else 1 for path in shapes}
    return imp.level_counts(shapes, rates(settings, shapes, output), least, level)


def imp_plan(
    problem: Problem, settings: ImpSettings, copies: dict[str, int], **more: Any
) -> LevelPlan:
    """The plan of iterative pruning for `levels.descend`.

    A lineage's own criterion overrides that of the settings. For criteria, the initial weights are
    those at the start of the level before.

    Args:
      problem: the net and its recipe.
      settings: the pruning procedure.
      copies: see `LevelPlan`.
      **more: further fields of `LevelPlan`.

    Raises:
      ValueError: the settings are invalid, see `keep_counts`.
    """
    check(settings)
    params = problem.param_shapes
    shapes = masks.shapes(params, problem.prunable)
    output, classes = nets.output_layer(problem.net), problem.dataset.classes

    def keep(level: int) -> Keep:
        return keep_counts(settings, shapes, output, classes, level)

    for level in range(1, settings.levels + 1):
        keep(level)
    floor = settings.floor if settings.scope == "global" else 0

    def prune(line: Lineage, mine: Descent, level: int, data: Dataset) -> Mask:
        seen = evidence(problem, line.seed, mine.params, data)
        seen = seen._replace(init_params=mine.begun, stats=mine.stats, mask=mine.mask)
        name = line.criterion or settings.criterion
        key = stream(line.seed.number, "level", name, level)
        return imp.prune(key, criteria.find(name), seen, problem.prunable, keep(level), floor)

    def going(line: Lineage) -> imp.LevelTraining:
        return imp.level_training(settings.rewind, line.rewind, problem.steps)

    return LevelPlan(settings.levels, prune, going, problem.steps, copies, **more)
