"""The settings of neuron fusion: how many units, which, how, and what comes after."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from experiments.harness.problem import Problem
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, option
from jaxtickets.compress import fusion
from jaxtickets.compress.fusion import HOW, WHICH
from jaxtickets.compress.graph import Graph
from jaxtickets.io.errors import UserError
from jaxtickets.types import Params, Stats


@dataclasses.dataclass(frozen=True)
class FuseSettings:
    """Which units are fused, and how. Each field is also a flag of the same name."""

    which: tuple = option(
        ("l1", "cosine", "activations", "kmeans", "random"),
        "rules that say which units are fused",
        tuple(WHICH),
    )
    how: tuple = option(("prune", "merge", "weighted", "regress"), "rules that say how", tuple(HOW))
    cuts: tuple = option((0.5, 0.7, 0.8), "fused shares of each layer's units", least=0, most=1)
    counts: tuple = option((), "units that stay in each layer, such as 150-50, instead of --cuts")
    cosines: tuple = option(
        (),
        "as many units are fused as there are pairs whose weights have such a cosine, instead of "
        "--cuts",
        above=-1,
        most=1,
    )
    least_cosine: float = option(
        fusion.LEAST_COSINE,
        "units whose nearest partner has a smaller cosine are fused into none",
        least=-1,
        most=1,
    )
    data_images: int = option(
        2000,
        "training images for the outputs of units, and for batch-norm statistics",
        least=100,
        most=10**7,
    )
    before_density: tuple = option(
        (1.0,),
        "kept fractions of the weights before fusion: the others are pruned by magnitude, and the "
        "net is trained like finetune",
        above=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class RetrainSettings:
    """What comes after fusion. Each field is also a flag of the same name."""

    retrain: tuple = option(
        ("none", "finetune"),
        "after fusion: nothing, batch-norm statistics estimated again, a few epochs, or as many as "
        "the dense net had",
        ("none", "statistics", "finetune", "full"),
    )
    retrained: tuple = option(
        (), "rules of --how whose nets are trained again; empty: all", tuple(HOW)
    )
    finetune_epochs: int = option(2, "epochs of fine-tuning", least=1, most=MOST_EPOCHS)
    finetune_rate: float = option(
        0.1,
        "constant learning rate of fine-tuning, as a fraction of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )


class Retraining(NamedTuple):
    """What is done with a fused net.

    Attributes:
      statistics: whether its batch-norm statistics are estimated again.
      steps: `steps(settings, problem)`: the number of training steps.
      tunes: whether it is trained at the constant rate of fine-tuning, without a penalty.
    """

    statistics: bool
    steps: Callable[[RetrainSettings, Problem], int]
    tunes: bool


def _no_steps(settings: RetrainSettings, problem: Problem) -> int:
    del settings, problem
    return 0


def tuning_steps(settings: RetrainSettings, problem: Problem) -> int:
    """The length of fine-tuning, in steps."""
    return problem.epoch_steps * settings.finetune_epochs


def _as_long(settings: RetrainSettings, problem: Problem) -> int:
    del settings
    return problem.steps


RETRAININGS: dict[str, Retraining] = {
    "none": Retraining(False, _no_steps, False),
    "statistics": Retraining(True, _no_steps, False),
    "finetune": Retraining(False, tuning_steps, True),
    "full": Retraining(False, _as_long, False),
}


class Amount(NamedTuple):
    """How many units are fused.

    Attributes:
      word: as the user wrote it.
      keep: `keep(params=..., stats=...) -> {group: units that stay}`.
    """

    word: str
    keep: Callable[..., Mapping[str, int]]


def amounts_of(settings: FuseSettings, graph: Graph) -> list[Amount]:
    """The amounts of fusion that the settings ask for.

    Raises:
      UserError: a layer would lose all its units, nothing would be fused, or the counts don't fit.
    """
    if settings.counts:
        return [Amount(word, partial(_counts, word, graph)) for word in settings.counts]
    if settings.cosines:
        return [Amount(f"{c:g}", partial(_by_cosine, c, graph)) for c in settings.cosines]
    return [Amount(f"{c:g}", partial(_by_share, c, graph)) for c in settings.cuts]


def _by_share(cut: float, graph: Graph, params: Params, stats: Stats) -> Mapping[str, int]:
    del params, stats
    try:
        return fusion.by_share(graph, cut)
    except ValueError as error:
        raise UserError(f"--cuts={cut:g}: {error}") from error


def _by_cosine(cosine: float, graph: Graph, params: Params, stats: Stats) -> Mapping[str, int]:
    return fusion.by_cosine(graph, params, stats, cosine)


def _counts(word: str, graph: Graph, params: Params, stats: Stats) -> Mapping[str, int]:
    del params, stats
    groups = fusion.fusible(graph)
    try:
        counts = [int(part) for part in word.split("-")]
    except ValueError:
        raise UserError(f"--counts={word}: must be whole numbers with - between them") from None
    if len(counts) != len(groups):
        names = ", ".join(group.name for group in groups)
        raise UserError(f"--counts={word}: {len(counts)} numbers for {len(groups)} layers: {names}")
    for count, group in zip(counts, groups, strict=True):
        if not 1 <= count <= group.size:
            raise UserError(f"--counts={word}: {group.name} has {group.size} units, 1 must stay")
    if all(count == group.size for count, group in zip(counts, groups, strict=True)):
        raise UserError(f"--counts={word}: no unit would be fused")
    return {group.name: count for count, group in zip(counts, groups, strict=True)}
