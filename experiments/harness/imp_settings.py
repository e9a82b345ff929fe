"""The settings of iterative pruning, and the number of weights they keep at each level."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.harness.settings import option
from jaxtickets import allocation
from jaxtickets.criteria import CRITERIA
from jaxtickets.recipes import imp
from jaxtickets.recipes.imp import REWINDS
from jaxtickets.types import Keep

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
        "magnitude", "pruning criterion; the lowest scores are pruned", tuple(CRITERIA)
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
