"""Filters removed for real: units are scored and chosen, and what is left is trained in four ways.

What a small net begins with, and how long it is trained, tells what was worth keeping: the weights
(fine-tuning), the first weights (rewinding), or the widths alone (from scratch, for as many epochs
as the dense net or for as much computation). Liu et al., "Rethinking the value of network
pruning", 2019, section 3.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxtickets.compress import unit_selection
from jaxtickets.compress.graph import Graph
from jaxtickets.compress.unit_selection import Rule, UnitScores
from jaxtickets.criteria.base import UnitCriterion
from jaxtickets.criteria.units import UNIT_CRITERIA, UNIT_VARIANTS, geometric_median
from jaxtickets.criteria.variants import resolve, split
from jaxtickets.types import Key, Model, Params, Stats, Ticket

NORMED = "fpgm_norm"
"""FPGM among the filters that a cut by norm leaves."""
RANKINGS: dict[str, Rule] = {
    "by_layer": unit_selection.by_layer,
    "over_layers": unit_selection.over_layers,
}


def methods(norm_keep: float = 1.0) -> dict[str, UnitCriterion]:
    """Name -> criterion of units: those of `criteria.units`, and `fpgm_norm`.

    Args:
      norm_keep: of `fpgm_norm`: the share of the filters that the cut by norm leaves.
    """
    score = partial(geometric_median.score, norm_keep=norm_keep)
    return UNIT_CRITERIA | {NORMED: UnitCriterion(score, weights_alone=True)}


METHODS = tuple(methods())


def plain(method: str) -> str:
    """The method of a name that may begin with `inverted_`; it may be unknown."""
    return split(method, METHODS, UNIT_VARIANTS)[1]


def find_method(method: str, norm_keep: float) -> UnitCriterion:
    """The criterion of units of that name; `inverted_l1` is the inverse of `l1`.

    Args:
      method: one of `METHODS`, or one after `inverted_`.
      norm_keep: see `methods`.

    Raises:
      ValueError: there is none.
    """
    return resolve(method, methods(norm_keep), UNIT_VARIANTS, "unit criterion")


class Cut(NamedTuple):
    """How units are chosen, given their scores.

    Attributes:
      rule: `by_layer` or `over_layers`.
      floor, multiple: see `choose.by_layer`.
      costs: leaf -> its multiply-adds in the whole net (`nets.multiply_adds`), where shares are
        of these; empty where they are of the units.
    """

    rule: Rule
    floor: int
    multiple: int
    costs: Mapping[str, int]


def chosen(cut: Cut, graph: Graph, scores: UnitScores, share: float) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the units that stay.

    Args:
      cut: how they are chosen.
      graph: of the net.
      scores: of all groups.
      share: in (0, 1], of the units; or of the multiply-adds, as many as fit into it.

    Raises:
      ValueError: as `choose.by_layer` and `choose.to_budget` do.
    """
    if not cut.costs:
        return cut.rule(graph, scores, share, cut.floor, cut.multiple)
    cost = partial(unit_selection.multiply_adds, graph, cut.costs)
    budget = int(share * sum(cut.costs.values()))
    return unit_selection.to_budget(cut.rule, graph, scores, cost, budget, cut.floor, cut.multiple)


# --- what is left is trained ---------------------------------------------------------------------


class Small(NamedTuple):
    """A small net, as its trainings see it.

    Attributes:
      model: for a new initialisation.
      first: its ticket with the dense net's first weights.
      trained: its ticket with the dense net's trained weights.
    """

    model: Model
    first: Ticket
    trained: Ticket


class Lengths(NamedTuple):
    """What decides how long a small net is trained, in steps.

    Attributes:
      dense: of the dense net's training.
      unit: between two looks, of which a training is a whole number.
      tuning: of fine-tuning.
      most: what scratch B takes at most, a multiple of `dense`; inf: as long as it takes.
    """

    dense: int
    unit: int
    tuning: int
    most: float


def rewound(key: Key, small: Small) -> tuple[Params, Stats]:
    """The dense net's first weights: is it the initialisation?"""
    del key
    return small.first.params, small.first.stats


def anew(key: Key, small: Small) -> tuple[Params, Stats]:
    """New weights: is it the widths alone?"""
    return small.model.init(key)


def kept(key: Key, small: Small) -> tuple[Params, Stats]:
    """The dense net's trained weights."""
    del key
    return small.trained.params, small.trained.stats


def as_long(lengths: Lengths, before: int, after: int) -> int:
    """As many steps as the dense net: scratch E."""
    del before, after
    return lengths.dense


def as_costly(lengths: Lengths, before: int, after: int) -> int:
    """As many multiply-adds as the dense net, `dense · before / after` steps: scratch B.

    At most `lengths.most · dense`: the paper doubles the epochs, no more, where more than half of
    the computation is saved; the code of its CIFAR runs has no such limit. Whole units, rounded
    down.

    Args:
      lengths: see `Lengths`.
      before: multiply-adds of the dense net.
      after: of the small one, no more.
    """
    steps = int(min(lengths.dense * before // after, lengths.dense * lengths.most))
    return steps // lengths.unit * lengths.unit


def briefly(lengths: Lengths, before: int, after: int) -> int:
    """As long as fine-tuning takes."""
    del before, after
    return lengths.tuning


class After(NamedTuple):
    """What becomes of a small net.

    Attributes:
      begin: `begin(key, small) -> (params, stats)` that its training begins with.
      steps: `steps(lengths, multiply-adds before, after) -> steps` of its training.
      inherits: whether it has anything of the dense net but the widths: if not, nets of the same
        widths are one, whatever chose their units.
      tunes: whether it is trained at the rate of fine-tuning.
    """

    begin: Callable[[Key, Small], tuple[Params, Stats]]
    steps: Callable[[Lengths, int, int], int]
    inherits: bool
    tunes: bool = False


AFTERS: dict[str, After] = {
    "rewind": After(rewound, as_long, inherits=True),
    "scratch_e": After(anew, as_long, inherits=False),
    "scratch_b": After(anew, as_costly, inherits=False),
    "finetune": After(kept, briefly, inherits=True, tunes=True),
}
