"""The ways to prune a net: after its training, by what weights are worth, or while it trains."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxtickets import criteria, masks
from jaxtickets.compress import surgeon
from jaxtickets.criteria import Evidence
from jaxtickets.dynamic import methods as dynamic
from jaxtickets.recipes import iterative_pruning
from jaxtickets.types import Key, Prunable, Ticket

Cut = Callable[[int], Ticket]
"""`cut(keep) -> Ticket`: with exactly so many weights."""


class Cutter(NamedTuple):
    """A way to prune trained nets.

    Attributes:
      study: `study(key, evidence, prunable, floor) -> Cut`: what all densities need alike; the key
        is consumed.
      iterated: whether it prunes in `--rounds` rounds, each of which is retrained; else in one.
    """

    study: Callable[[Key, Evidence, Prunable, int], Cut]
    iterated: bool = False


class Mover(NamedTuple):
    """A way to prune nets while they train, from their first weights.

    Attributes:
      method: the facts about the method of dynamic sparse training.
      inner: what changes its inner optimiser, of `dynamic.methods.INNERS`; empty for nothing.
    """

    method: dynamic.Method
    inner: str = ""


def by_criterion(name: str) -> Callable[[Key, Evidence, Prunable, int], Cut]:
    """Keeps the weights of the highest scores, and their values."""
    criterion = criteria.CRITERIA[name]

    def study(key: Key, evidence: Evidence, prunable: Prunable, floor: int) -> Cut:
        def cut(keep: int) -> Ticket:
            mask = iterative_pruning.prune(key, criterion, evidence, prunable, keep, floor)
            params = masks.apply(mask, evidence.params)
            return Ticket(params, evidence.stats, mask, np.int32(0))

        return cut

    return study


def by_surgeon(name: str) -> Callable[[Key, Evidence, Prunable, int], Cut]:
    """Keeps the weights that a surgeon removes last, with the values that make up for the others."""

    def study(key: Key, evidence: Evidence, prunable: Prunable, floor: int) -> Cut:
        del key
        found = surgeon.SURGEONS[name](evidence, prunable)
        return lambda keep: surgeon.prune(found, keep, floor)

    return study


CUTTERS: dict[str, Cutter] = {
    **{name: Cutter(by_criterion(name)) for name in ("random", "magnitude", "fisher", "obd")},
    **{name: Cutter(by_surgeon(name)) for name in ("woodfisher", "layer_obs", "exact_obs")},
    "iterative_magnitude": Cutter(by_criterion("magnitude"), iterated=True),
    "iterative_exact_obs": Cutter(by_surgeon("exact_obs"), iterated=True),
}
"""`obs` is missing: nets of images have too many weights for the whole Hessian."""
MOVERS: dict[str, Mover] = {
    "gradual": Mover(dynamic.METHODS["gradual"]),
    "granet": Mover(dynamic.METHODS["granet"]),
    "gradual+ham": Mover(dynamic.METHODS["gradual"], "ham"),
    "granet+ham": Mover(dynamic.METHODS["granet"], "ham"),
}
NAMES = (*CUTTERS, *MOVERS)
ONE_SHOT = tuple(name for name, one in CUTTERS.items() if not one.iterated)
