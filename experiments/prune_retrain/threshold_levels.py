"""Threshold pruning with retraining: the plan of its rounds, the rounds, and their columns."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.dense_store import Dense
from experiments.harness.levels import descend
from experiments.harness.lineages import Descent, LevelPlan, Lineage
from experiments.harness.problem import Problem
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from jaxtickets import masks, nets, runs
from jaxtickets.recipes.imp import LevelTraining
from jaxtickets.recipes.thresholds import cut, thresholds
from jaxtickets.types import Dataset, Mask, Params


def threshold_plan(
    problem: Problem,
    rule: str,
    rounds: int,
    scale_dropout: bool,
    lines: Sequence[Lineage],
    dense: Params,
    steps: int,
) -> LevelPlan:
    """The plan of the rounds, each a cut followed by the problem's training.

    Args:
      problem: the net and its retraining.
      rule: see `thresholds.RULES`.
      rounds: the number of rounds.
      scale_dropout: whether the dropout rate is scaled with the density.
      lines: the lineages, with a `threshold` in their names.
      dense: the parameters of their trained dense nets, stacked over lineages.
      steps: the training steps of the dense nets.
    """

    @jax.jit
    def first(params: Any, t: jax.Array) -> dict[str, jax.Array]:
        return thresholds(rule, params, masks.ones(params), problem.prunable, t)

    @jax.jit
    def later(mine: Descent, fixed: dict[str, jax.Array], t: jax.Array) -> Mask:
        values = fixed
        if rule == "deviation":
            values = thresholds(rule, mine.params, mine.mask, problem.prunable, t)
        return cut(rule, mine.params, mine.mask, problem.prunable, values)

    def number(line: Lineage) -> jax.Array:
        return jnp.float32(line.name["threshold"])

    def place(line: Lineage) -> tuple[float, int]:
        return line.name["threshold"], line.seed.number

    fixed = {place(line): first(runs.take(dense, i), number(line)) for i, line in enumerate(lines)}

    def prune(line: Lineage, mine: Descent, level: int, data: Dataset) -> Mask:
        del level, data
        return later(mine, fixed[place(line)], number(line))

    going = LevelTraining(rewound=False, start=0, end=problem.steps)
    made = LevelPlan(rounds, prune, lambda line: going, steps, {})
    return made._replace(retrain=_with_less_dropout) if scale_dropout else made


def prune_and_retrain(
    session: Session,
    again: Problem,
    dense: Dense,
    values: Sequence[float],
    rule: str,
    rounds: int,
    scale_dropout: bool,
) -> list[dict[str, Any]]:
    """Prunes the dense nets by each threshold and retrains them, round by round; summary rows.

    Args:
      session: the dense nets' problem, the seeds, and the net's folder.
      again: the net and its retraining.
      dense: the trained dense nets.
      values: the thresholds.
      rule, rounds, scale_dropout: see `threshold_plan`.
    """
    found = []
    # scaled dropout depends on the threshold, so each threshold is a net of its own
    for together in [(t,) for t in values] if scale_dropout else [tuple(values)]:
        lines = [
            Lineage(one, again.hyper, {"threshold": t, "seed": one.number})
            for t in together
            for one in session.seeds
        ]
        owners = np.arange(len(lines)) % len(session.seeds)
        trained = runs.take((dense.params, dense.stats), owners)
        plan = threshold_plan(
            again,
            rule,
            rounds,
            scale_dropout,
            lines,
            dense=trained[0],
            steps=session.problem.steps,
        )
        part = session.folder / f"{together[0]:g}" if scale_dropout else session.folder
        part.mkdir(exist_ok=True)
        there = session._replace(folder=part, problem=again)
        found += descend(there, plan, lines, after=lambda summary: None, dense=trained)
    return found


def counted(
    model: str, problem: Problem, summary: Sequence[dict[str, Any]], method: str
) -> list[dict[str, Any]]:
    """The summary rows with the net's name, remaining parameters, and multiply-adds per image.

    Args:
      model: the net's name.
      problem: the net.
      summary: rows of `train_entries`.
      method: the method's name in the rows.
    """
    shape = problem.image_shape
    uses = nets.positions(problem.net, shape)
    params = problem.param_shapes
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    whole = masks.size(params, problem.prunable)
    made = []
    for row in summary:
        kept = {path: row[f"kept/{path}"] for path in problem.prunable}
        gone = whole - sum(kept.values())
        adds = sum(count * uses.get(path, 0) for path, count in kept.items())
        made.append(
            {
                **row,
                "model": model,
                "method": method,
                "round": row.get("level", 0),
                "parameters": total - gone,
                "compression": round(total / (total - gone), 4),
                "multiply_adds": adds,
            }
        )
    return made


def _with_less_dropout(problem: Problem, entries: Sequence[Entry]) -> Problem:
    """The problem with the dropout rate times the square root of the entries' mean density.

    Han et al., 2015, equation 2. The paper uses each layer's density; here it is the mean over
    seeds of the whole net's density.
    """
    shares = [float(masks.density(entry.start.mask, problem.prunable)) for entry in entries]
    net = problem.net.clone(dropout=problem.net.dropout * float(np.mean(shares)) ** 0.5)
    return problem.with_net(net, problem.penalty, problem.wiring)
