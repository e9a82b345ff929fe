"""Trains the tickets that a search found beside baseline masks; a summary row of each."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from experiments.harness import trained_masks
from experiments.harness.budgeted_search import dense_cost, price
from experiments.harness.chain_runs import FoundTicket
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed, evidence, mask_key, training_key
from experiments.harness.session import Session
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start
from jaxtickets import runs
from jaxtickets.criteria import CRITERIA
from jaxtickets.recipes.baseline_masks import BASELINES
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Mask, Params

METHODS = ("ticket", "ticket_last", *BASELINES)
"""The masks that can be trained: the search's best, the search's last, and the baselines."""
Weights = Callable[[Mask, Params], Params]
"""`weights(mask, params) -> params`: the weights at the start of a ticket's training."""


def as_they_are(mask: Mask, params: Params) -> Params:
    """Returns the weights unchanged."""
    del mask
    return params


def train(
    session: Session,
    space: Space,
    found: Sequence[FoundTicket],
    methods: Sequence[str],
    floor: int,
    weights: Weights = as_they_are,
    rivals: Sequence[tuple[str, FoundTicket]] = (),
) -> list[dict[str, Any]]:
    """Saves the tickets, and trains them beside baselines and rivals; a summary row of each.

    The rows are those of `trained_masks.train_entries`. Rows of tickets and rivals also hold the
    metrics of their searches. `search_cost` is the cost of finding the mask, in dense trainings.
    The dense nets are trained first, in the phase `dense`; all others in the phase `train`.

    Args:
      session: the run.
      space: maps bits to masks.
      found: the results of the search, one for each density and seed.
      methods: names from `METHODS`.
      floor: the minimum number of weights that a baseline keeps in each layer.
      weights: gives the weights at the start of each training.
      rivals: name in the table and result of other searches.
    """

    problem = session.problem

    def entry(method: str, density: float, one: Seed, bits: Array) -> Entry:
        mask = space.mask(bits)
        name = {"method": method, "density": density, "seed": one.number}
        params = weights(mask, one.params)
        return Entry(name, Start(training_key(one), problem.hyper, params, one.stats, mask))

    for one in found:
        ticket = entry("ticket", one.density, one.seed, one.ticket)
        trained_masks.save_entry(session.folder, problem, ticket, one.seed.step)
    seeds = {one.seed.number: one.seed for one in found}
    summary: list[dict[str, Any]] = []
    trained: dict[int, Any] = dict.fromkeys(seeds)
    if {"dense", "magnitude"} & set(methods):
        dense = [entry("dense", 1.0, one, jnp.ones(space.size, bool)) for one in seeds.values()]
        others = len(found) * len(set(methods) - {"dense"}) + len(rivals)
        part = trained_masks.with_later(session, others * problem.steps)
        ends, summary = trained_masks.train_entries(part, "dense", dense)
        trained = {number: runs.take(ends.state.params, i) for i, number in enumerate(trained)}

    def compared(one: FoundTicket) -> list[Entry]:
        given = evidence(problem, one.seed, trained[one.seed.number], session.data)
        entries = []
        for method in methods:
            if method == "dense":
                continue
            if method in BASELINES:
                key = mask_key(one.seed, method, one.density)
                bits = BASELINES[method](key, given, space, one.ticket, floor)
            else:
                bits = getattr(one, method)
            entries.append(entry(method, one.density, one.seed, bits))
        return entries

    entries = [made for one in found for made in compared(one)]
    entries += [entry(name, one.density, one.seed, one.ticket) for name, one in rivals]
    if entries:
        summary += trained_masks.train_entries(session, "train", entries)[1]
    columns = {("ticket", one.density, one.seed.number): one.columns for one in found}
    columns |= {(name, one.density, one.seed.number): one.columns for name, one in rivals}
    rows = [row | columns.get((row["method"], row["density"], row["seed"]), {}) for row in summary]
    return [row | _cost(problem, row) for row in rows]


def _cost(problem: Problem, row: dict[str, Any]) -> dict[str, float]:
    """The search cost of a row's mask; empty if it is unknown."""
    free = 0 if row["method"].startswith("random") else None
    known = row["method"] in CRITERIA
    passes = price(problem, row["method"]) if known else row.get("forward_passes", free)
    return {} if passes is None else {"search_cost": round(passes / dense_cost(problem), 4)}
