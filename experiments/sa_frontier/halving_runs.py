"""Successive halving among a run's tickets, decided by the metrics of the run's own trainings."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness import rows
from experiments.harness.budgeted_search import dense_cost, price
from experiments.harness.flags import numbers
from experiments.harness.problem import Problem
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.successive_halving import race
from jaxtickets.search.energies import training_cost

RACED = "raced"
"""The method's name in the summary row of a winner."""


def looks_at(shares: Sequence[Any], problem: Problem) -> list[int]:
    """The evaluations after which the worse half is dropped, from fractions of the training.

    Raises:
      UserError: the fractions don't rise.
    """
    if not shares:
        return []
    found = numbers("race", shares)
    if any(a >= b for a, b in itertools.pairwise(found)):
        raise UserError(f"--race={','.join(map(str, shares))}: must rise")
    every = problem.steps // problem.recipe.every
    return sorted({max(1, round(share * every)) for share in found})


def races(
    folder: Path,
    phase: str,
    summary: Sequence[dict[str, Any]],
    searches: Sequence[str],
    problem: Problem,
    at: Sequence[int],
) -> list[dict[str, Any]]:
    """The winner's row for each budget, density and seed, with the method `raced`.

    Contenders are the masks that need no dense training: searches at that budget, random masks, and
    criteria at the initialisation. A row's `forward_passes` are the cost of finding all contenders,
    of training the losers until they are dropped, and of all evaluations on validation data. The
    winner's own training isn't counted, as in other rows. `winner` is the winner's method.

    Args:
      folder: the run's folder.
      phase: the prefix of the trainings' phases; their metrics hold the validation losses.
      summary: the rows so far, with `forward_passes`.
      searches: the methods that are searches.
      problem: the net and its training.
      at: the evaluations after which contenders are dropped, see `recipes.successive_halving`;
        empty: there is no race.
    """
    dense, recipe = dense_cost(problem), problem.recipe
    mine = [row for row in summary if _is_cheap(row, searches, problem, dense)]
    curves: dict[tuple, dict[int, float]] = {}
    for row in rows.read_metrics(folder):
        if row["phase"].startswith(phase) and "step" in row:
            curves.setdefault(_ticket(row), {})[row["step"]] = row["loss"]
    made = []
    budgets = sorted({row["budget"] for row in mine if row.get("budget")}) or [None]
    cells = dict.fromkeys((row["density"], row["seed"]) for row in mine)
    for density, seed in cells if at else ():
        for budget in budgets:
            there = {
                row["method"]: row
                for row in mine
                if (row["density"], row["seed"]) == (density, seed)
                and row.get("budget") in (None, budget)
            }
            losses = {
                name: [loss for _, loss in sorted(curves[_ticket(row)].items())]
                for name, row in there.items()
            }
            winner, evaluations = race(losses, at)
            passes = sum(row["forward_passes"] for row in there.values())
            passes += training_cost((evaluations - at[-1]) * recipe.every * recipe.batch_size)
            passes += evaluations * len(problem.dataset.validation.labels)
            said = {"method": RACED, "budget": budget, "forward_passes": passes, "winner": winner}
            alone = {k: v for k, v in there[winner].items() if not k.startswith("search_")}
            made.append({**alone, **said})
    return made


def _is_cheap(row: dict[str, Any], searches: Sequence[str], problem: Problem, dense: int) -> bool:
    """Whether a row's mask needs no dense training."""
    method = row["method"]
    return method != "dense" and (method in searches or price(problem, method) < dense)


def _ticket(row: dict[str, Any]) -> tuple:
    return row.get("method"), row.get("budget"), row.get("density"), row.get("seed")
