"""The plan of iterative magnitude pruning for `levels.descend`."""

from typing import Any

from experiments.harness.imp_settings import ImpSettings, keep_counts
from experiments.harness.lineages import Descent, LevelPlan, Lineage
from experiments.harness.problem import Problem
from experiments.harness.seeds import evidence
from experiments.harness.settings import check
from jaxtickets import criteria, masks, nets
from jaxtickets.keys import stream
from jaxtickets.recipes import imp
from jaxtickets.types import Dataset, Keep, Mask


def imp_plan(
    problem: Problem, settings: ImpSettings, copies: dict[str, int], **more: Any
) -> LevelPlan:
    """The plan of iterative pruning.

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
