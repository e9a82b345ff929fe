"""Structured pruning: filters are scored, selected and removed, and the small net is trained.

Four trainings of the small net separate what it inherits: the trained weights (fine-tuning), the
initial weights (rewinding), or only the widths (from scratch, for as many epochs or as many
multiply-adds as the dense net). Liu et al., "Rethinking the value of network pruning", 2019,
section 3.
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
"""FPGM among the filters that remain after pruning by norm."""
RANKINGS: dict[str, Rule] = {
    "by_layer": unit_selection.by_layer,
    "over_layers": unit_selection.over_layers,
}


def methods(norm_keep: float = 1.0) -> dict[str, UnitCriterion]:
    """Name -> criterion of units: those of `criteria.units`, and `fpgm_norm`.

    Args:
      norm_keep: for `fpgm_norm`, the share of filters that remain after pruning by norm.

    >>> methods()["l1"] is UNIT_CRITERIA["l1"], methods(norm_keep=0.5)["fpgm_norm"].weights_alone
    (True, True)
    """
    score = partial(geometric_median.score, norm_keep=norm_keep)
    return UNIT_CRITERIA | {NORMED: UnitCriterion(score, weights_alone=True)}


METHODS = tuple(methods())


def plain(method: str) -> str:
    """The method's name without a leading `inverted_`; it may be unknown.

    >>> plain("inverted_l1"), plain("l1")
    ('l1', 'l1')
    """
    return split(method, METHODS, UNIT_VARIANTS)[1]


def find_method(method: str, norm_keep: float) -> UnitCriterion:
    """The criterion of units of a name; `inverted_l1` is the inverse of `l1`.

    Args:
      method: one of `METHODS`, optionally after `inverted_`.
      norm_keep: see `methods`.

    Raises:
      ValueError: an unknown name.

    >>> from jaxtickets.criteria.base import Evidence
    >>> from jaxtickets.types import Feed, Units
    >>> group = Units("fc1", 2, producers=("fc1",), norms=(), consumers=(Feed("out", 1),))
    >>> params = {"fc1": {"kernel": np.array([[1.0, 2.0], [3.0, 4.0]])}}
    >>> seen = Evidence(params, params, {}, None, None, None)
    >>> l1, inverse = find_method("l1", 1.0), find_method("inverted_l1", 1.0)
    >>> [method.score(None, seen, (group,))["fc1"].tolist() for method in (l1, inverse)]
    [[4.0, 6.0], [-4.0, -6.0]]
    """
    return resolve(method, methods(norm_keep), UNIT_VARIANTS, "unit criterion")


class Cut(NamedTuple):
    """How units are selected from their scores.

    Attributes:
      rule: `by_layer` or `over_layers`.
      floor, multiple: see `unit_selection.by_layer`.
      costs: leaf -> its multiply-adds in the whole net (`nets.multiply_adds`), if shares are of the
        multiply-adds; empty if they are of the units.
    """

    rule: Rule
    floor: int
    multiple: int
    costs: Mapping[str, int]


def chosen(cut: Cut, graph: Graph, scores: UnitScores, share: float) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the units that are kept.

    Args:
      cut: how units are selected.
      graph: the net's channel graph.
      scores: the scores of all groups.
      share: in (0, 1]: the share of units to keep, or the largest share of the multiply-adds.

    Raises:
      ValueError: as in `unit_selection.by_layer` and `unit_selection.to_budget`.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress.graph import trace
    >>> graph = trace(nets.make("lenet300_100", widths=(4, 2)), (2, 1, 1))
    >>> scores = {"fc1": np.array([1.0, 4.0, 2.0, 3.0]), "fc2": np.array([1.0, 2.0])}
    >>> half = chosen(Cut(RANKINGS["by_layer"], 1, 1, costs={}), graph, scores, share=0.5)
    >>> {group: units.tolist() for group, units in half.items()}
    {'fc1': [False, True, False, True], 'fc2': [False, True]}
    """
    if not cut.costs:
        return cut.rule(graph, scores, share, cut.floor, cut.multiple)
    cost = partial(unit_selection.multiply_adds, graph, cut.costs)
    budget = int(share * sum(cut.costs.values()))
    return unit_selection.to_budget(cut.rule, graph, scores, cost, budget, cut.floor, cut.multiple)


# --- training of the small net -------------------------------------------------------------------


class Small(NamedTuple):
    """A small net and its tickets.

    Attributes:
      model: the net as functions, for a new initialisation.
      first: its ticket with the dense net's initial weights.
      trained: its ticket with the dense net's trained weights.
    """

    model: Model
    first: Ticket
    trained: Ticket


class Lengths(NamedTuple):
    """Lengths of trainings, in steps.

    Attributes:
      dense: the length of the dense net's training.
      unit: the number of steps between two validation evaluations; a training is a whole number of
        these.
      tuning: the length of fine-tuning.
      most: the longest training of scratch B, as a multiple of `dense`; inf for no limit.
    """

    dense: int
    unit: int
    tuning: int
    most: float


def _rewound(key: Key, small: Small) -> tuple[Params, Stats]:
    """The dense net's initial weights: does the initialisation matter?"""
    del key
    return small.first.params, small.first.stats


def _reinitialised(key: Key, small: Small) -> tuple[Params, Stats]:
    """New initial weights: do the widths alone suffice?"""
    return small.model.init(key)


def _kept(key: Key, small: Small) -> tuple[Params, Stats]:
    """The dense net's trained weights."""
    del key
    return small.trained.params, small.trained.stats


def _as_long(lengths: Lengths, before: int, after: int) -> int:
    """As many steps as the dense training: scratch E."""
    del before, after
    return lengths.dense


def _as_costly(lengths: Lengths, before: int, after: int) -> int:
    """As many multiply-adds as the dense training, `dense · before / after` steps: scratch B.

    At most `lengths.most · dense` steps. The paper at most doubles the epochs, even if more than
    half of the computation is saved; the code of its CIFAR runs has no such limit. Rounded down to
    whole units.

    Args:
      lengths: see `Lengths`.
      before: the multiply-adds of the dense net.
      after: the multiply-adds of the small net, at most `before`.
    """
    steps = int(min(lengths.dense * before // after, lengths.dense * lengths.most))
    return steps // lengths.unit * lengths.unit


def _briefly(lengths: Lengths, before: int, after: int) -> int:
    """The length of fine-tuning."""
    del before, after
    return lengths.tuning


class After(NamedTuple):
    """One way to train a small net.

    Attributes:
      begin: `begin(key, small) -> (params, stats)`: the initial weights; the key is consumed.
      steps: `steps(lengths, before, after) -> steps`: the length of the training; `before` and
        `after` are multiply-adds.
      inherits: whether the small net inherits more than its widths from the dense net. If not, nets
        of equal widths are trained once, whatever method selected their units.
      tunes: whether it is trained at the learning rate of fine-tuning.
    """

    begin: Callable[[Key, Small], tuple[Params, Stats]]
    steps: Callable[[Lengths, int, int], int]
    inherits: bool
    tunes: bool = False


AFTERS: dict[str, After] = {
    "rewind": After(_rewound, _as_long, inherits=True),
    "scratch_e": After(_reinitialised, _as_long, inherits=False),
    "scratch_b": After(_reinitialised, _as_costly, inherits=False),
    "finetune": After(_kept, _briefly, inherits=True, tunes=True),
}
