"""What is pruned, when a ticket is drawn and how it is trained on: the settings, checked."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.harness.filter_cuts import check_scores
from experiments.harness.flags import numbers, whole_numbers
from experiments.harness.problem import Problem
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, MOST_STEPS, option
from experiments.harness.training_runs import chunk_plan
from jaxtickets import allocation, criteria, nets, penalties
from jaxtickets.compress import graph as graphs
from jaxtickets.compress.graph import Graph
from jaxtickets.criteria import Evidence
from jaxtickets.criteria.units import find_unit
from jaxtickets.io.errors import UserError
from jaxtickets.recipes import drawn_masks, early_bird
from jaxtickets.recipes.drawn_masks import Masks
from jaxtickets.search import space as spaces
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Key, Params

ANNEALED = "annealed"
"""The name of the criterion whose masks are found by annealing."""


@dataclasses.dataclass(frozen=True)
class DrawSettings:
    """What is pruned, when a ticket is drawn, and how it is trained afterwards."""

    granularity: str = option("weights", "what is pruned", ("weights", "units"))
    criterion: str = option(
        "",
        "pruning criterion, or annealed; empty: |w| for weights, batch-norm scales or mean |w| for "
        "units",
    )
    anneal_steps: int = option(
        300,
        "proposed swaps at the end of each epoch, with --criterion=annealed",
        least=1,
        most=MOST_STEPS,
    )
    density: tuple = option(
        (0.3, 0.1), "kept fractions of the weights, or of the units", above=0, most=1
    )
    floor: int = option(1, "minimum number that a layer keeps", least=0, most=10**9)
    tolerance: float = option(
        0.1, "largest Hamming distance at which two masks agree", least=0, most=1
    )
    window: int = option(
        early_bird.WINDOW, "consecutive masks that must agree", least=2, most=MOST_EPOCHS
    )
    after: str = option(
        "continue",
        "continue training at the epoch of the draw, or restart at epoch 0",
        ("continue", "retrain"),
    )
    draw_at: tuple = option(
        (0.05, 0.1, 0.25, 0.5, 0.75),
        "further epochs at which tickets are drawn; below 1: fractions of the training",
        least=0,
        most=MOST_EPOCHS,
    )
    scale_l1: float = option(
        1e-4,
        "strength of the L1 penalty on batch-norm scales, with --granularity=units",
        least=0,
        most=MOST_FACTOR,
    )


class DrawPlan(NamedTuple):
    """The plan of a run.

    Attributes:
      settings: the checked settings, with the criterion's name filled in.
      keep: density -> number of kept bits.
      draw_at: the epochs at which tickets are drawn besides the rule's.
      space: maps bits to masks.
      masks: makes the masks of all densities at a training step.
      graph: the net's traced graph; None if weights are pruned.
      search: the problem of the dense training, with the penalty in its loss.
      epoch: training steps in an epoch.
      epochs: the number of epochs of the dense training.
    """

    settings: DrawSettings
    keep: dict[float, int]
    draw_at: tuple[int, ...]
    space: Space
    masks: Masks
    graph: Graph | None
    search: Problem
    epoch: int
    epochs: int


def plan_draws(settings: DrawSettings, problem: Problem) -> DrawPlan:
    """Checks the settings and makes the plan.

    Raises:
      UserError: a number or a criterion is invalid, or the net can't be pruned that way.
    """
    params = problem.param_shapes
    image = problem.image_shape
    epoch = problem.epoch_steps
    epochs = problem.steps // epoch
    draw_at = _epochs_of(settings.draw_at, epochs)
    densities = sorted(set(numbers("density", settings.density)), reverse=True)
    try:
        if problem.steps % epoch:
            raise ValueError(
                f"{problem.steps} training steps: must be whole epochs of {epoch} steps"
            )
        chunk_plan(problem, range(0, problem.steps, epoch), problem.steps)
        if settings.window > epochs:
            raise ValueError(
                f"window={settings.window}: must be {epochs} or less, one mask for each epoch"
            )
        if not all(1 <= at < epochs for at in draw_at):
            words = ",".join(map(str, draw_at))
            raise ValueError(f"draw_at={words}: must be from 1 to {epochs - 1}, before the end")
        graph, penalty = None, problem.penalty
        if settings.granularity == "units":
            graph = graphs.trace(problem.net, image)
            space = early_bird.unit_space(params, graph)
            if penalty is not None:
                raise ValueError("--penalty: with --granularity=units give --scale_l1 instead")
            if any(group.norms for group in graph.wiring):
                penalty = _on_scales(settings.scale_l1, nets.output_layer(problem.net))
        else:
            space = spaces.weights(params, problem.prunable)
        settings = dataclasses.replace(settings, criterion=_criterion(settings, graph))
        shapes = dict(zip(space.names, space.shapes, strict=True))
        keep = {d: allocation.global_(shapes, d, settings.floor) for d in densities}
        counts = tuple(keep.values())
        if settings.criterion == ANNEALED:
            drawn = drawn_masks.annealed(space, settings.anneal_steps, counts, settings.floor)
        else:
            score, draws = _scorer(settings, problem, space, graph)
            drawn = drawn_masks.ranked(space, score, counts, settings.floor, own=draws)
    except ValueError as error:
        raise UserError(str(error)) from error
    search = problem.with_net(problem.net, penalty, problem.wiring).with_recipe(
        evaluations_per_test=0
    )
    return DrawPlan(settings, keep, draw_at, space, drawn, graph, search, epoch, epochs)


def _epochs_of(draw_at: Sequence[str], epochs: int) -> tuple[int, ...]:
    """The epochs in rising order. Numbers below 1 are fractions of `epochs`."""
    named = numbers("draw_at", draw_at) if draw_at else ()
    shares = {max(1, round(at * epochs)) for at in named if 0 < at < 1}
    whole = whole_numbers("draw_at", [at for at in draw_at if not 0 < float(at) < 1])
    return tuple(sorted({at for at in shares if at < epochs} | set(whole)))


def _on_scales(strength: float, output: str) -> Callable[[Params], Array]:
    return lambda params: strength * penalties.scales(params, output)


def _criterion(settings: DrawSettings, graph: Graph | None) -> str:
    """The criterion's name; by default that of the paper, if the net has batch-norm scales.

    Without scales units are ranked by the mean of |w|. Sums (L1) favour layers with many inputs: in
    a ranking over all layers, the second layer of `lenet300_100` would keep only its floor.
    """
    if settings.criterion:
        return settings.criterion
    if graph is None:
        return "magnitude"
    return "abs_batch_norm" if all(group.norms for group in graph.wiring) else "mean_abs"


def _scorer(
    settings: DrawSettings, problem: Problem, space: Space, graph: Graph | None
) -> tuple[Callable[[Key, Evidence], Array], bool]:
    """The function that scores the space's bits, and whether its scores are random."""
    if graph is None:
        weigh = criteria.find(settings.criterion)
        return lambda key, seen: space.pool(weigh.score(key, seen)), weigh.draws
    wiring, judge = graph.wiring, find_unit(settings.criterion)
    check_scores(judge, problem, wiring)
    return lambda key, seen: space.pool(judge.score(key, seen, wiring)), judge.draws
