"""What a sparse training changed, and what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.problem import Problem
from experiments.sparse_training.plans import Named
from jaxtickets import masks, nets
from jaxtickets.types import Array


def costs(
    one: Named,
    problem: Problem,
    begun: Mapping[str, Array],
    passed: Sequence[dict[str, Any]],
    every: int,
) -> dict[str, float]:
    """What a run changed, and what it cost.

    Args:
      one: the method.
      problem: the net and its training.
      begun: path -> int32 scalar, the first mask's counts.
      passed: the metrics rows of the run.
      every: training steps between two moves.

    Returns:
      `churn`, the number of weights grown over the training, in masks of the last size;
      `sparse_cost`, the multiply-adds with zeros skipped, in dense trainings, where a training step
      has a forward pass and two backward ones, all sparse but those of a dense gradient; and
      `dense_cost`, the same with zeros multiplied: 1 and the gradients that moves need.
    """
    adds = nets.multiply_adds(problem.net, problem.image_shape)
    total, pruned = sum(adds.values()), [path for path in problem.prunable if path in adds]
    size = masks.shapes(problem.param_shapes, problem.prunable)
    share = {
        path: np.mean([int(begun[path]), *(row[f"kept/{path}"] for row in passed[:-1])])
        / np.prod(size[path])
        for path in pruned
    }
    sparse = 1 - sum(adds[path] * (1 - share[path]) for path in pruned) / total
    moves = problem.steps // every if one.method is not None and one.method.plan else 0
    dense_gradient = one.method.dense_gradient if one.method is not None else "never"
    steps, extra = 3 * problem.steps * sparse, 0.0
    if dense_gradient == "steps":
        steps = problem.steps * (2 * sparse + 1)
    if dense_gradient == "moves":
        extra = moves * (2 * sparse + 1)
    last = sum(passed[-1][f"kept/{path}"] for path in problem.prunable)
    return {
        "churn": round(passed[-1]["grown"] / last, 4),
        "sparse_cost": round((steps + extra) / (3 * problem.steps), 5),
        "dense_cost": round(1 + (moves / problem.steps if extra else 0), 5),
    }
