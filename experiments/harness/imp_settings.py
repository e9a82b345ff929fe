"""The settings of iterative pruning, and what they say of each leaf and level."""

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
    """The procedure by names and numbers; each field is also a flag of the same name."""

    levels: int = option(
        7, "times that the net is pruned; one level is one-shot", least=1, most=1000
    )
    prune_rate: float = option(
        0.4, "share of a layer's weights left that a level prunes", above=0, below=1
    )
    conv_rate: float = option(0.0, "the same for convolutions; 0: as prune_rate", least=0, below=1)
    output_rate: float = option(
        0.2, "the same for the output layer; 0: as prune_rate", least=0, below=1
    )
    scope: str = option("layer", "ranked in each layer, or all together by prune_rate", SCOPES)
    floor: int = option(1, "the least that a layer keeps if ranked together", least=0, most=10**9)
    criterion: str = option("magnitude", "what is pruned: the lowest of", tuple(CRITERIA))
    rewind: str = option("weights", "what goes back: weights and rate, the rate, none", REWINDS)
    rewind_step: str = option("0", "to which step: 500, 0.01 (of the training) or 2ep (epochs)")


def rates(
    settings: ImpSettings, shapes: Mapping[str, tuple[int, ...]], output: str
) -> dict[str, float]:
    """Path -> the share that a level prunes of what is left there.

    Args:
      settings: the rates.
      shapes: path -> shape of the prunable leaves; four axes are a convolution.
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
    """What is left after `level` levels: a count for each leaf, or one for all ranked together.

    Raises:
      ValueError: a layer is left with nothing, or the output layer with fewer weights than there
        are classes.
    """
    if settings.scope == "global":
        return allocation.global_(shapes, (1 - settings.prune_rate) ** level, settings.floor)
    least = {path: classes if path.startswith(f"{output}/") else 1 for path in shapes}
    return imp.level_counts(shapes, rates(settings, shapes, output), least, level)
