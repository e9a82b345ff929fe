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


Study = Callable[[Key, Evidence, Prunable, int], Cut]
"""`study(key, evidence, prunable, floor) -> Cut`: what all densities need; it consumes the key."""


class Cutter(NamedTuple):
    """A way to prune trained nets.

    Attributes:
      study: see `Study`.
      iterated: whether it prunes in `--rounds` rounds, each of which is retrained; else in one.
    """

    study: Study
    iterated: bool = False


class Mover(NamedTuple):
    """A way to prune nets while they train, from their first weights.

    Attributes:
      method: the facts about the method of dynamic sparse training.
      inner: what changes its inner optimiser, of `dynamic.methods.INNERS`; empty for nothing.
    """

    method: dynamic.Method
    inner: str = ""


def by_criterion(name: str) -> Study:
    """Keeps the weights of the highest scores, with their values."""
    criterion = criteria.CRITERIA[name]

    def study(key: Key, evidence: Evidence, prunable: Prunable, floor: int) -> Cut:
        params = masks.apply(evidence.mask, evidence.params)
        scores = criterion.score(key, evidence._replace(params=params, prunable=prunable))

        def cut(keep: int) -> Ticket:
            mask = iterative_pruning.narrow(scores, evidence.mask, prunable, keep, floor)
            return Ticket(masks.apply(mask, params), evidence.stats, mask, np.int32(0))

        return cut

    return study


def by_surgeon(name: str) -> Study:
    """Keeps the weights that a surgeon removes last; their values make up for the others."""

    def study(key: Key, evidence: Evidence, prunable: Prunable, floor: int) -> Cut:
        del key
        found = surgeon.SURGEONS[name](evidence, prunable)
        return lambda keep: surgeon.prune(found, keep, floor)

    return study


STUDIES = {
    **{name: by_criterion(name) for name in ("random", "magnitude", "fisher", "obd")},
    **{name: by_surgeon(name) for name in surgeon.SURGEONS if name != "obs"},
}
"""`obs` is missing: nets of images have too many weights for the whole Hessian."""
CUTTERS: dict[str, Cutter] = {
    **{name: Cutter(study) for name, study in STUDIES.items()},
    **{f"iterative_{name}": Cutter(study, iterated=True) for name, study in STUDIES.items()},
}
MOVERS: dict[str, Mover] = {
    "gradual": Mover(dynamic.METHODS["gradual"]),
    "granet": Mover(dynamic.METHODS["granet"]),
    "gradual+ham": Mover(dynamic.METHODS["gradual"], "ham"),
    "granet+ham": Mover(dynamic.METHODS["granet"], "ham"),
}
NAMES = (*CUTTERS, *MOVERS)
ONE_SHOT = (*STUDIES,)
ITERATED = tuple(name for name, one in CUTTERS.items() if one.iterated)
HAM = tuple(name for name, one in MOVERS.items() if one.inner)
