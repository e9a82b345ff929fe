"""Nets whose filters are pruned softly as they train: a training for each share and seed."""

from experiments.harness import cached_trainings
from experiments.harness.dense_store import dense_entry
from experiments.harness.filter_cuts import Choice, CutPlan
from experiments.harness.session import Session
from jaxtickets.io import tickets
from jaxtickets.recipes import soft_filter_pruning


def choices(session: Session, plan: CutPlan) -> list[Choice]:
    """The units that are left after soft training, with the weights that it ends with.

    Each training takes as long as the dense net's, from the same first weights and in the same
    order of the data; looks, and with them the choice of filters, are at the ends of epochs. The
    nets are saved whole, zeroed filters and all, as `tickets/METHOD-rateSHARE-whole-seedN`.

    Args:
      session: the net and its training, and the seeds.
      plan: its soft methods and shares; none: nothing is done.
    """
    made, how = [], plan.how
    folder, problem, seeds = session.folder, session.problem, session.seeds
    for method, criterion in plan.soft.items():
        for share in plan.shares:
            at_look = soft_filter_pruning.zeroing(
                criterion, plan.graph, share, how.floor, how.multiple
            )
            zeroing = problem.with_recipe(every=plan.epoch, test_looks=0, at_look=at_look)
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
                made.append(Choice(method, share, one, end.params, end.stats, units, {}))
    return made
