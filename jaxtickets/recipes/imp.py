"""Iterative pruning with rewinding: train, prune a share of what is left, rewind, repeat.

Frankle and Carbin, "The lottery ticket hypothesis", 2019 (rewinding to the initialisation); Frankle
et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020 (to an early step); Renda
et al., "Comparing rewinding and fine-tuning", 2020 (the learning rate alone, or nothing).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxtickets import allocation, masks
from jaxtickets.criteria import CRITERIA, Criterion, Evidence
from jaxtickets.recipes.iterative_pruning import narrow
from jaxtickets.settings import check as check_options
from jaxtickets.settings import option
from jaxtickets.types import Keep, Key, Mask, Prunable

REWINDS = ("weights", "learning_rate", "none")
SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Settings:
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


class Going(NamedTuple):
    """A level's training: whether it begins from rewound weights, its first and last step."""

    rewound: bool
    start: int
    end: int


def check(settings: Settings) -> None:
    """Raises ValueError, in one line, for a value that can't be."""
    check_options(settings)


def rates(
    settings: Settings, shapes: Mapping[str, tuple[int, ...]], output: str
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
    settings: Settings,
    shapes: Mapping[str, tuple[int, ...]],
    output: str,
    classes: int,
    level: int,
) -> Keep:
    """What is left after `level` levels: `size · (1 − rate)^level`, rounded.

    A count for each leaf, or one for all that are ranked together.

    Raises:
      ValueError: a layer is left with nothing, or the output layer with fewer weights than there
        are classes.
    """
    if settings.scope == "global":
        return allocation.global_(shapes, (1 - settings.prune_rate) ** level, settings.floor)
    left = {
        path: round(float(np.prod(shapes[path])) * (1 - rate) ** level)
        for path, rate in rates(settings, shapes, output).items()
    }
    for path, count in left.items():
        least = classes if path.startswith(f"{output}/") else 1
        if count < least:
            raise ValueError(
                f"level {level} leaves {count} weights in {path}, which needs {least}: "
                "fewer levels or a lower rate"
            )
    return left


def prune(
    key: Key,
    criterion: Criterion,
    evidence: Evidence,
    prunable: Prunable,
    keep: Keep,
    floor: int = 0,
) -> Mask:
    """The `keep` highest of the survivors of `evidence.mask`; what is pruned stays pruned.

    Args:
      key: consumed.
      criterion: see `criteria`.
      evidence: trained parameters, and the mask so far.
      prunable: the leaves that are ranked.
      keep: as in `masks.select`; no more than is left.
      floor: the least that a leaf keeps when all are ranked together, or what it has left.

    Raises:
      ValueError: as in `masks.select`, or more is to be kept than is left.
    """
    left = masks.counts(evidence.mask, prunable)
    wanted = keep if isinstance(keep, Mapping) else {"all leaves": keep}
    there = left if isinstance(keep, Mapping) else {"all leaves": sum(left.values())}
    for path, count in wanted.items():
        if count > int(there[path]):
            raise ValueError(f"{count} to be kept of {int(there[path])} left in {path}")
    floors = {path: min(floor, int(count)) for path, count in left.items()}
    scores = criterion(key, evidence._replace(prunable=prunable))
    return narrow(scores, evidence.mask, prunable, keep, floors)


def going(settings: Settings, rewind: int, steps: int) -> Going:
    """How a pruned net goes on: `rewind` to `steps`, or as many steps after the end.

    Fine-tuning (`none`) goes on at the learning rate that training ended with.
    """
    if settings.rewind == "none":
        return Going(rewound=False, start=steps, end=2 * steps - rewind)
    return Going(rewound=settings.rewind == "weights", start=rewind, end=steps)


def rewind_step(text: str, steps: int, epoch: int, every: int) -> int:
    """The step that words name: `500`, `0.01` of the training, or `2ep`, two epochs.

    A fraction and an epoch mean the look nearest to them.

    Args:
      text: what is asked for.
      steps: of the training.
      epoch: steps of an epoch.
      every: steps between two looks: parameters are kept at looks.

    Raises:
      ValueError: it is none of these, or past the end, or a step between two looks.
    """
    text = text.strip()
    try:
        if text.endswith("ep"):
            exact = float(text.removesuffix("ep")) * epoch
        elif "." in text:
            exact = float(text) * steps
        else:
            exact = int(text)
        step = every * round(exact / every) if isinstance(exact, float) else exact
    except (ValueError, OverflowError) as error:
        raise ValueError(f"rewind_step={text}: a step (500), a fraction (0.01) or 2ep") from error
    if exact < 0 or step >= steps:
        raise ValueError(f"rewind_step={text}: must be in the training, which has {steps} steps")
    if step % every:
        raise ValueError(f"rewind_step={text}: must be a multiple of look_every={every}")
    return step
