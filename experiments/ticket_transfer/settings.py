"""The settings of ticket transfer, the conditions of trainings, and their checks."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from experiments.harness import memory
from experiments.harness.flags import RunSettings
from experiments.harness.imp_plan import ImpSettings, imp_plan
from experiments.harness.lineages import LevelPlan
from experiments.harness.problem import Problem, build
from experiments.harness.session import refuse_photographs
from experiments.harness.settings import MOST_FACTOR, choose, option
from experiments.harness.training_runs import chunk_plan
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import data, optimizers
from jaxtickets.analysis import matching
from jaxtickets.compress import graph as graphs
from jaxtickets.compress.graph import Graph
from jaxtickets.io.errors import UserError
from jaxtickets.recipes import imp


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """Where tickets are found and trained. Each field is also a flag of the same name."""

    datasets: tuple = option(
        ("mnist5k", "mnist5k:inverted", "mnist5k:rotated"),
        f"data sets, each a source and a target; with {' or '.join(f':{v}' for v in data.VARIANTS)}"
        " after the name, a variant",
    )
    optimizers: tuple = option(
        ("momentum", "adam"),
        "optimisers that tickets are found with, and trained with",
        optimizers.NAMES,
    )
    rates: tuple = option(
        (0.05, 0.001),
        "peak learning rate of each optimiser",
        above=0,
        most=MOST_FACTOR,
        repeats=True,
    )
    across: bool = option(True, "train tickets on another seed's initialisation too")
    match_images: int = option(
        1000, "training images on which units are matched", least=2, most=10**7
    )


class Condition(NamedTuple):
    """A data set and an optimiser: where a ticket is found, or trained.

    Attributes:
      label: its name in rows, such as `mnist5k/adam`.
      problem: the net, the data and the training.
      plan: the levels of iterative pruning.
      rewind: the step to which its tickets are rewound.
      graph: the net's channel graph.
    """

    label: str
    problem: Problem
    plan: LevelPlan
    rewind: int
    graph: Graph


def conditions(
    settings: TransferSettings,
    pruning: ImpSettings,
    net: NetSettings,
    train: TrainSettings,
    place: RunSettings,
    precision: str,
) -> list[Condition]:
    """Every data set with every optimiser.

    Raises:
      UserError, DataError: something can't be done; no work has started.
    """
    _check(settings, pruning, net)
    found = []
    for dataset in settings.datasets:
        for optimizer, rate in zip(settings.optimizers, settings.rates, strict=True):
            mine = dataclasses.replace(train, optimizer=optimizer, learning_rate=rate)
            on = dataclasses.replace(net, dataset=dataset)
            problem = build(on, mine, place.data_dir, place.prepare, precision)
            cells = net.seeds * (2 * len(settings.datasets) * len(settings.optimizers) + 5)
            size = memory.training(problem.param_shapes)
            memory.check_memory(f"--seeds={net.seeds}", cells, size, "trainings")
            found.append(_condition(f"{dataset}/{optimizer}", problem, pruning))
    return found


def _condition(label: str, problem: Problem, pruning: ImpSettings) -> Condition:
    try:
        plan = imp_plan(problem, pruning, {})
        epoch, every = problem.epoch_steps, problem.recipe.every
        rewind = imp.rewind_step(pruning.rewind_step, problem.steps, epoch, every)
        chunk_plan(problem, [rewind], problem.steps)
        graph = graphs.trace(problem.net, problem.image_shape)
        matching.matchable(graph)
    except ValueError as error:
        raise UserError(f"{label}: {error}") from error
    return Condition(label, problem, plan, rewind, graph)


def _check(settings: TransferSettings, pruning: ImpSettings, net: NetSettings) -> None:
    if len(settings.rates) != len(settings.optimizers):
        raise UserError(
            f"--rates: {len(settings.rates)} for the {len(settings.optimizers)} of --optimizers: "
            "give one for each"
        )
    for name in settings.datasets:
        whole, colon, variant = name.partition(":")
        refuse_photographs(dataclasses.replace(net, dataset=whole))
        choose("data set", whole, data.NAMES)
        if colon:
            choose("variant", variant, tuple(data.VARIANTS))
    _check_shapes(settings.datasets)
    if net.prune_output:
        raise UserError("--prune_output: each data set has its own output layer, which is dense")
    if pruning.rewind != "weights":
        raise UserError(f"--rewind={pruning.rewind}: must be weights, which are carried over")
    if settings.across and net.seeds < 2:
        raise UserError(
            f"--seeds={net.seeds}: the ticket of another initialisation takes 2 or more, "
            "or --noacross"
        )


def _check_shapes(names: Sequence[str]) -> None:
    shapes = {name: data.shape(name) for name in names}
    first = names[0]
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise UserError(
                f"--datasets: images of {name} are {shape}, those of {first} {shapes[first]}: "
                "a ticket fits one shape"
            )
