"""Finds the tickets of a condition: iterative magnitude pruning with rewinding."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.harness import rows
from experiments.harness.levels import descend
from experiments.harness.lineages import lineages_of
from experiments.harness.rows import Row
from experiments.harness.session import Session
from experiments.harness.trained_masks import LEADING, Entry, save_entry
from experiments.ticket_transfer.settings import Condition
from jaxtickets import runs
from jaxtickets.io.tickets import load_ticket
from jaxtickets.training import Watched
from jaxtickets.types import Params, Stats, Ticket


class Source(NamedTuple):
    """What one seed's net gives to others.

    Attributes:
      ticket: the mask of the last level and the rewound weights.
      trained: the weights of this ticket at the end of its training.
      dense: parameters and statistics of the trained dense net.
      row: the summary row of the dense net.
    """

    ticket: Ticket
    trained: Params
    dense: tuple[Params, Stats]
    row: Row


def find_tickets(session: Session, condition: Condition) -> list[Source]:
    """The ticket of each seed, with the dense net that it was pruned from.

    Trained nets are kept as `trained-levelNN-seedN` among the tickets, so that a resumed run has
    them.

    Args:
      session: the condition's own folder, problem and seeds.
      condition: where tickets are found.
    """
    folder, problem, plan = session.folder, session.problem, condition.plan

    def keep(entries: Sequence[Entry], ends: Watched) -> list[dict[str, Any]]:
        for i, entry in enumerate(entries):
            params, stats = runs.take((ends.state.params, ends.state.stats), i)
            end = Entry(entry.name, entry.start._replace(params=params, stats=stats))
            save_entry(folder, problem, end, problem.steps, _trained(entry.name))
        return [{} for _ in entries]

    def report(summary: list[Row]) -> None:
        rows.write_summary(folder, summary, *LEADING)

    rate = float(problem.hyper.rate), int(problem.hyper.warmup)
    lines = lineages_of(session.seeds, [rate], condition.rewind)
    summary = descend(session, plan, lines, after=report, look=keep)
    dense = {row["seed"]: row for row in summary if row["level"] == 0}
    found = []
    for one in session.seeds:
        last = {"level": plan.levels, "seed": one.number}
        names = (
            f"level{plan.levels:02d}-seed{one.number}",
            _trained(last),
            _trained({**last, "level": 0}),
        )
        ticket, trained, whole = (load_ticket(folder / "tickets" / name)[0] for name in names)
        row = dense[one.number]
        found.append(Source(ticket, trained.params, (whole.params, whole.stats), row))
    return found


def _trained(name: Row) -> str:
    return f"trained-level{name['level']:02d}-seed{name['seed']}"
