"""Iterative pruning with rewinding: train, prune a share of what is left, rewind, repeat.

Frankle and Carbin, "The lottery ticket hypothesis", 2019 (rewinding to the initialisation); Frankle
et al., "Linear mode connectivity and the lottery ticket hypothesis", 2020 (to an early step); Renda
et al., "Comparing rewinding and fine-tuning", 2020 (the learning rate alone, or nothing).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxtickets import masks
from jaxtickets.criteria import Criterion, Evidence
from jaxtickets.recipes.iterative_pruning import narrow
from jaxtickets.types import Keep, Key, Mask, Prunable

REWINDS = ("weights", "learning_rate", "none")


class LevelTraining(NamedTuple):
    """A level's training: whether it begins from rewound weights, its first and last step."""

    rewound: bool
    start: int
    end: int


def level_training(rewind: str, step: int, steps: int) -> LevelTraining:
    """How a pruned net is trained: from the step that it is rewound to, or on from the end.

    Args:
      rewind: one of `REWINDS`: weights and learning rate go back, the rate alone, or nothing;
        fine-tuning (`none`) goes on at the learning rate that training ended with, for as long.
      step: that tickets go back to.
      steps: of the dense training.
    """
    if rewind == "none":
        return LevelTraining(rewound=False, start=steps, end=2 * steps - step)
    return LevelTraining(rewound=rewind == "weights", start=step, end=steps)


def level_counts(
    shapes: Mapping[str, tuple[int, ...]],
    rates: Mapping[str, float],
    least: Mapping[str, int],
    level: int,
) -> dict[str, int]:
    """What is left of each leaf after `level` levels: `size · (1 − rate)^level`, rounded.

    Args:
      shapes: path -> shape.
      rates: path -> the share of what is left that a level prunes.
      least: path -> the fewest weights that a leaf may be left with.
      level: levels that have pruned.

    Raises:
      ValueError: a leaf is left with fewer; the message names it.
    """
    left = {
        path: round(float(np.prod(shapes[path])) * (1 - rate) ** level)
        for path, rate in rates.items()
    }
    for path, count in left.items():
        if count < least[path]:
            raise ValueError(
                f"level {level} leaves {count} weights in {path}, which needs {least[path]}: "
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
      criterion: of `criteria`, or `Criterion(score)` of your own; its score is asked once.
      evidence: the parameters that it scores, trained as a rule, and the mask so far.
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
    scores = criterion.score(key, evidence._replace(prunable=prunable))
    return narrow(scores, evidence.mask, prunable, keep, floors)


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
