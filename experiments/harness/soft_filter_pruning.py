"""Nets whose filters are pruned softly as they train: a training for each share and seed."""

from collections.abc import Sequence
from pathlib import Path

from experiments.harness import cached_trainings
from experiments.harness.dense_store import dense_entry
from experiments.harness.problem import Problem
from experiments.harness.seeds import Seed
from experiments.harness.unit_selection import Choice, Plan
from jaxtickets.io import tickets
from jaxtickets.recipes import soft_filter_pruning
from jaxtickets.runs import Axis
from jaxtickets.types import Dataset


def choices(
    folder: Path,
    plan: Plan,
    problem: Problem,
    axis: Axis,
    seeds: Sequence[Seed],
    data: Dataset,
    every: float,
) -> list[Choice]:
    """The units that are left after soft training, with the weights that it ends with.

    Each training takes as long as the dense net's, from the same first weights and in the same
    order of the data; looks, and with them the choice of filters, are at the ends of epochs. The
    nets are saved whole, zeroed filters and all, as `tickets/METHOD-rateSHARE-whole-seedN`.

    Args:
      folder, axis, data, every: see `train_all`.
      plan: its soft methods and shares; none: nothing is done.
      problem: the net and its training.
      seeds: which.
    """
    made, how = [], plan.how
    for method, criterion in plan.soft.items():
        for share in plan.shares:
            at_look = soft_filter_pruning.zeroing(
                criterion, plan.graph, share, how.floor, how.multiple
            )
            recipe = problem.recipe._replace(every=plan.epoch, test_looks=0, at_look=at_look)
            softly, phase = problem._replace(recipe=recipe), f"{method}-rate{share:g}"
            names = [f"{phase}-whole-seed{one.number}" for one in seeds]
            entries = {
                name: dense_entry(problem, one)._replace(
                    name={"method": method, "rate": share, "seed": one.number}
                )
                for name, one in zip(names, seeds, strict=True)
            }
            cached_trainings.train(folder, folder, phase, softly, axis, entries, data, every)
            for name, one in zip(names, seeds, strict=True):
                end, _ = tickets.load_ticket(folder / "tickets" / name)
                units = soft_filter_pruning.standing(end.params, plan.graph.wiring)
                made.append(Choice(method, share, one, end.params, end.stats, units, {}))
    return made
