"""Soft filter pruning: trains a net for each method, share and seed, and selects its filters."""

from experiments.harness import cached_trainings
from experiments.harness.dense_store import dense_entry
from experiments.harness.filter_cuts import Choice, CutPlan
from experiments.harness.session import Session
from jaxtickets.io import tickets
from jaxtickets.recipes import soft_filter_pruning


def choices(session: Session, plan: CutPlan) -> list[Choice]:
    """The units that remain after soft filter pruning, with the trained weights.

    Each training has the length, the initial weights and the data order of the dense net's. Filters
    are chosen and zeroed at the end of each epoch, when the net is evaluated. The whole nets, with
    their zeroed filters, are saved as `tickets/METHOD-rateSHARE-whole-seedN`.

    Args:
      session: the net, its training, and the seeds.
      plan: its soft methods and shares are trained. Without soft methods nothing is done.
    """
    selected, selection = [], plan.selection
    folder, problem, seeds = session.folder, session.problem, session.seeds
    for method, criterion in plan.soft.items():
        for share in plan.shares:
            zero = soft_filter_pruning.zeroing(
                criterion, plan.graph, share, selection.floor, selection.multiple
            )
            zeroing = problem.with_recipe(
                every=plan.epoch, evaluations_per_test=0, before_evaluation=zero
            )
            softly = session._replace(problem=zeroing)
            phase = f"{method}-rate{share:g}"
            names = [f"{phase}-whole-seed{one.number}" for one in seeds]
            entries = {
                name: dense_entry(problem, one)._replace(
                    name={"method": method, "rate": share, "seed": one.number}
                )
                for name, one in zip(names, seeds, strict=True)
            }
            cached_trainings.train(softly, folder, phase, entries)
            for name, one in zip(names, seeds, strict=True):
                end, _ = tickets.load_ticket(folder / "tickets" / name)
                units = soft_filter_pruning.standing(end.params, plan.graph.wiring)
                selected.append(Choice(method, share, one, end.params, end.stats, units, {}))
    return selected
