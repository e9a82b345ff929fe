"""A race of tickets: which one to train, told by how their trainings begin.

All begin the training that the winner will be given, so that nobody has to begin anew. At each look
the better half by validation loss goes on, and after the last the best has won: successive halving
(Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
2016) over tickets instead of hyperparameters.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Race(NamedTuple):
    """How a race ended.

    Attributes:
      winner: its name.
      looks: those that all contenders' trainings took together.
    """

    winner: str
    looks: int


def race(losses: Mapping[str, Sequence[float]], at: Sequence[int]) -> Race:
    """The winner among contenders, and what it took to find it.

    Args:
      losses: validation losses of each contender, one a look; nan counts as the worst.
      at: looks, counted from 1 and rising, at which the worse half leaves (of an odd number the
        smaller one), at the last one all but the best.

    Raises:
      ValueError: there are no contenders or no looks, looks don't rise, or one has too few losses.
    """
    if not losses or not at:
        raise ValueError("a race needs contenders and looks")
    if min(at) < 1 or any(a >= b for a, b in itertools.pairwise(at)):
        raise ValueError(f"looks {tuple(at)}: must be 1 or more, and rise")
    if short := [name for name, seen in losses.items() if len(seen) < at[-1]]:
        raise ValueError(f"{short[0]} has {len(losses[short[0]])} looks of {at[-1]}")
    left, taken, before = list(losses), 0, 0
    for look in at:
        taken += len(left) * (look - before)
        before = look
        seen = {name: losses[name][look - 1] for name in left}
        left.sort(key=lambda name: math.inf if math.isnan(seen[name]) else seen[name])
        left = left[: 1 if look == at[-1] else -(-len(left) // 2)]
    return Race(left[0], taken)
