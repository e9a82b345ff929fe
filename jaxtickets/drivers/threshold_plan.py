"""Threshold pruning with retraining as a plan for `levels.descend`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import losses, masks, nets, runs
from jaxtickets.data import shape as image_shape
from jaxtickets.drivers.comparison import Entry
from jaxtickets.drivers.levels import Descent, Lineage, Plan
from jaxtickets.drivers.problem import Problem
from jaxtickets.protocols.imp import Going
from jaxtickets.protocols.thresholds import cut, thresholds
from jaxtickets.types import Dataset, Mask, Params


def threshold_plan(
    problem: Problem,
    rule: str,
    rounds: int,
    scale_dropout: bool,
    lines: Sequence[Lineage],
    dense: Params,
    steps: int,
) -> Plan:
    """What is cut in every round, each followed by the problem's training.

    Args:
      problem: the retraining.
      rule: see `thresholds.RULES`.
      rounds: how many.
      scale_dropout: whether dropout follows the weights left.
      lines: lineages with a `threshold` in their name.
      dense: parameters of their dense nets, stacked.
      steps: of the dense nets' training.
    """

    @jax.jit
    def first(params: Any, t: jax.Array) -> dict[str, jax.Array]:
        whole = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
        return thresholds(rule, params, whole, problem.prunable, t)

    @jax.jit
    def later(mine: Descent, fixed: dict[str, jax.Array], t: jax.Array) -> Mask:
        where = rule, mine.params, mine.mask, problem.prunable
        values = thresholds(*where, t) if rule == "deviation" else fixed
        return cut(*where, values)

    def number(line: Lineage) -> jax.Array:
        return jnp.float32(line.name["threshold"])

    def place(line: Lineage) -> tuple[float, int]:
        return line.name["threshold"], line.seed.number

    fixed = {place(line): first(runs.take(dense, i), number(line)) for i, line in enumerate(lines)}

    def prune(line: Lineage, mine: Descent, level: int, data: Dataset) -> Mask:
        del level, data
        return later(mine, fixed[place(line)], number(line))

    going = Going(rewound=False, start=0, end=problem.steps)
    plan = Plan(rounds, prune, lambda line: going, steps, {})
    return plan._replace(retrain=_with_less_dropout) if scale_dropout else plan


def _with_less_dropout(problem: Problem, entries: Sequence[Entry]) -> Problem:
    """The problem with dropout times the root of the share of weights that the entries have left.

    Han et al., 2015, equation 2, over all prunable weights and seeds in place of each layer's.
    """
    shares = [float(masks.density(entry.start.mask, problem.prunable)) for entry in entries]
    net = problem.net.clone(dropout=problem.net.dropout * float(np.mean(shares)) ** 0.5)
    model = nets.functional(net, image_shape(problem.dataset.name))
    loss = losses.classification(model, problem.recipe.prepare)
    return problem._replace(recipe=problem.recipe._replace(model=model, loss=loss))
