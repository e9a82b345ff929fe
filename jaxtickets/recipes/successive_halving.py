"""Successive halving of tickets: early validation losses select which ticket to train to the end.

All tickets start the same training that the selected one will finish, so that no training is
restarted. At each given evaluation, the half with the lower validation losses continues; after the
last one, the best is selected. Jamieson and Talwalkar, "Non-stochastic best arm identification and
hyperparameter optimization", 2016, applied to tickets instead of hyperparameters.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Race(NamedTuple):
    """The result of successive halving.

    Attributes:
      winner: the name of the selected ticket.
      evaluations: the number of validation evaluations in all trainings together.
    """

    winner: str
    evaluations: int


def race(losses: Mapping[str, Sequence[float]], at: Sequence[int]) -> Race:
    """Selects the winner from the validation losses, and counts the evaluations it took.

    Args:
      losses: name -> validation losses, one for each evaluation; NaN ranks last.
      at: the evaluations, counted from 1 and increasing, after which the worse half is dropped (of
        an odd number, the smaller half); after the last one, all but the best.

    Raises:
      ValueError: there are no contenders or no evaluations, evaluations do not increase, or a
        contender has too few losses.

    >>> race({"a": [1.0, 0.7], "b": [2.0, 0.1], "c": [3.0, 0.2], "d": [0.5, 0.9]}, at=[1, 2])
    Race(winner='a', evaluations=6)
    """
    if not losses or not at:
        raise ValueError("successive halving needs contenders and evaluations")
    if min(at) < 1 or any(a >= b for a, b in itertools.pairwise(at)):
        raise ValueError(f"evaluations {tuple(at)}: must be 1 or more, and increase")
    if short := [name for name, seen in losses.items() if len(seen) < at[-1]]:
        raise ValueError(f"{short[0]} has {len(losses[short[0]])} losses, {at[-1]} are needed")
    left, taken, previous = list(losses), 0, 0
    for evaluation in at:
        taken += len(left) * (evaluation - previous)
        previous = evaluation
        latest = {name: losses[name][evaluation - 1] for name in left}
        left.sort(key=lambda name: math.inf if math.isnan(latest[name]) else latest[name])
        left = left[: 1 if evaluation == at[-1] else -(-len(left) // 2)]
    return Race(left[0], taken)
