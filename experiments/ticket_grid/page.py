"""The table and figure of the page: every cut, by the epoch to which it is rewound."""

from collections.abc import Sequence

from experiments.harness import tables
from experiments.harness.tables import Row
from experiments.ticket_grid import batching_cost, step_profile

RECORDS, OPTIONAL = ("summary.csv",), ("cost.csv", "profile.csv")
FIGURE = "grid"


def table(summary: Sequence[Row], costs: Sequence[Row] = (), profile: Sequence[Row] = ()) -> str:
    """The accuracies, and what trainings cost if it was measured (`--cost_trainings`)."""
    texts = [accuracies(summary)]
    texts += [batching_cost.table(costs)] if costs else []
    texts += [step_profile.table(profile)] if profile else []
    return "\n\n".join(texts)


def accuracies(summary: Sequence[Row]) -> str:
    """The accuracy of each threshold's masks by rewind epoch: tickets, reinitialised, shuffled.

    Accuracies are means ± sample standard deviations over seeds. The first line is the dense nets'.
    """
    groups: dict[tuple[str, float, int], list[Row]] = {}
    for row in summary:
        cut = row["method"], row.get("threshold") or 0.0, row.get("rewind") or 0
        groups.setdefault(cut, []).append(row)
    rewinds = sorted({rewind for _, _, rewind in groups})
    columns = {f"ticket, epoch {rewind} %": ("ticket", rewind) for rewind in rewinds}
    columns["reinit %"] = "reinit", 0
    columns |= {f"shuffled, epoch {rewind} %": ("shuffled", rewind) for rewind in rewinds}
    dense = groups["dense", 0.0, 0]
    trained = tables.cells([tables.accuracy("trained")], dense)
    lines = [
        ["pruned %", "n", "dense %", *columns],
        ["0", str(len(dense)), *trained, *("" for _ in columns)],
    ]
    for threshold in sorted({row["threshold"] for row in summary if row.get("threshold")}):
        cells, n = [], 0
        for method, rewind in columns.values():
            members = groups[method, threshold, rewind]
            cells += tables.cells([tables.accuracy("trained")], members)
            n = len(members)
        lines.append([f"{threshold:g}", str(n), "", *cells])
    return tables.aligned(lines)
