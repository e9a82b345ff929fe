"""Iterative magnitude pruning with rewinding: train, prune a share of what remains, rewind, repeat.

Frankle and Carbin, "The lottery ticket hypothesis", 2019, rewind to the initialisation; Frankle et
al., "Linear mode connectivity and the lottery ticket hypothesis", 2020, to an early step; Renda et
al., "Comparing rewinding and fine-tuning", 2020, only the learning rate, or nothing.
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
    """The training of one level.

    Attributes:
      rewound: whether it starts from rewound weights.
      start: its first step.
      end: its last step.
    """

    rewound: bool
    start: int
    end: int


def level_training(rewind: str, step: int, steps: int) -> LevelTraining:
    """The training of a pruned net: from the step to which it is rewound, or on from the end.

    Args:
      rewind: one of `REWINDS`. `weights` rewinds weights and learning rate, `learning_rate` only
        the rate. `none` is fine-tuning: it continues at the final learning rate for as many steps.
      step: the step to which tickets are rewound.
      steps: the number of steps of the dense training.

    >>> level_training("weights", step=100, steps=1000)
    LevelTraining(rewound=True, start=100, end=1000)
    >>> level_training("none", step=100, steps=1000)
    LevelTraining(rewound=False, start=1000, end=1900)
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
    """The count of each leaf after `level` levels: `size · (1 − rate)^level`, rounded.

    Args:
      shapes: path -> shape.
      rates: path -> the share of the remaining weights that one level prunes.
      least: path -> the fewest weights that the leaf may keep.
      level: the number of levels pruned so far.

    Raises:
      ValueError: a leaf would keep fewer; the message names it.

    >>> level_counts({"w": (10, 10)}, rates={"w": 0.2}, least={"w": 1}, level=2)
    {'w': 64}
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
    """Keeps the `keep` highest scores among the kept weights; pruned weights stay pruned.

    Args:
      key: consumed.
      criterion: from `criteria`, or your own `Criterion(score)`; its score is called once.
      evidence: the parameters to score, usually trained, and the mask so far.
      prunable: the leaves that are ranked.
      keep: as in `masks.select`; at most the number of weights that remain.
      floor: the fewest weights in each leaf when all are ranked together; leaves with fewer are
        kept whole.

    Raises:
      ValueError: as in `masks.select`, or `keep` exceeds the number of weights that remain.

    >>> from jaxtickets.criteria import CRITERIA
    >>> params, mask = {"w": jnp.array([[1.0, -3.0, 2.0]])}, {"w": jnp.array([[True, False, True]])}
    >>> evidence = Evidence(params, params, {}, mask, batches=None, loss=None)
    >>> prune(jax.random.key(0), CRITERIA["magnitude"], evidence, ("w",), keep=1)["w"].tolist()
    [[False, False, True]]
    """
    left = masks.counts(evidence.mask, prunable)
    wanted = keep if isinstance(keep, Mapping) else {"all leaves": keep}
    there = left if isinstance(keep, Mapping) else {"all leaves": sum(left.values())}
    for path, count in wanted.items():
        if count > int(there[path]):
            raise ValueError(f"keep={count} of the {int(there[path])} weights left in {path}")
    floors = {path: min(floor, int(count)) for path, count in left.items()}
    scores = criterion.score(key, evidence._replace(prunable=prunable))
    return narrow(scores, evidence.mask, prunable, keep, floors)


def rewind_step(text: str, steps: int, epoch: int, every: int) -> int:
    """The training step that a text names: `500`, `0.01` of the training, or `2ep`, two epochs.

    A fraction or an epoch is rounded to the nearest validation evaluation.

    Args:
      text: the text.
      steps: the number of training steps.
      epoch: the number of steps in an epoch.
      every: the number of steps between two validation evaluations, at which parameters are stored.

    Raises:
      ValueError: the text has another form, or its step is outside the training or between two
        evaluations.

    >>> [rewind_step(text, steps=1000, epoch=100, every=10) for text in ("500", "0.01", "2ep")]
    [500, 10, 200]
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
