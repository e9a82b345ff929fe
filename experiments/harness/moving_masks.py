"""How the mask of a dynamic method begins and moves, for any comparison that trains by one."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from experiments.harness.problem import Problem
from jaxtickets import allocation, masks
from jaxtickets.dynamic.methods import Method
from jaxtickets.types import Array, Keep, Key, PyTree

ALLOCATIONS = ("erk", "uniform")
"""The counts of each layer, of methods that keep them."""


class SparseHyper(NamedTuple):
    """The hyperparameters that may differ between the runs of a batch.

    Attributes:
      rate, warmup: see `optimizers.Hyper`.
      key: for the method's random choices.
      moves: the plan of the moves; `()` if there is none.
      signs: the first parameters, if the method asks for them; else `()`.
    """

    rate: Array
    warmup: Array
    key: Key
    moves: PyTree = ()
    signs: PyTree = ()


class Planned(NamedTuple):
    """How a training's mask begins and moves.

    Attributes:
      first: path -> the number of weights that the first mask keeps; None for all.
      moves: the plan of the moves, see `drop_and_grow.MovePlan`; `()` if there is none.
    """

    first: Mapping[str, int] | None
    moves: PyTree


def planned(
    method: Method,
    density: float,
    problem: Problem,
    every: int,
    begin: float = 0.5,
    spread: str = "erk",
    floor: int = 1,
) -> Planned:
    """The first mask's counts, and the plan of all moves but that at the end of the training.

    Args:
      method: the facts about the method.
      density: the fraction of the prunable weights that is kept in the end.
      problem: the net and its training.
      every: training steps between two moves.
      begin: the first density of a method that begins between sparse and dense, or `density` if
        that is higher.
      spread: the counts of each layer, one of `ALLOCATIONS`.
      floor: the minimum number of weights that a layer keeps.

    Raises:
      ValueError: the density is out of reach of the floors, or the plan isn't possible.
    """
    shapes = masks.shapes(problem.param_shapes, problem.prunable)
    start = max(begin, density) if method.begin == "between" else density
    first: dict[str, int] | None = None
    if method.begin != "dense":
        first = allocation.ALLOCATIONS[spread](shapes, start, floor)
    if method.plan is None:
        return Planned(first, ())
    end: Keep = first if method.counts == "leaf" else allocation.global_(shapes, density, floor)
    size = masks.size(problem.param_shapes, problem.prunable)
    ones: Keep = end if method.counts == "leaf" else size if first is None else sum(first.values())
    number = problem.steps // every - 1
    moves = method.plan(moves=number, begin=ones, end=end, floor=floor)
    return Planned(first, jax.tree.map(np.asarray, moves))
