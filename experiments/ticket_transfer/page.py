"""The table and figure of the page: tickets of each source on each target, and their controls."""

from collections.abc import Sequence

from experiments.harness.tables import Row, aligned, difference, spread

RECORDS = ("summary.csv",)
FIGURE = "transfer"
ACROSS = ("naive", "permuted", "signed", "permuted_signed")
"""The masks of other seeds, in the order of the table."""
SHOWN = ("dense", "random", "ticket", *ACROSS)
"""Methods with lines of their own; `shuffled` is what a ticket is compared with."""


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds, and differences with 95 % intervals.

    The differences are paired by seed: from the target's random masks, from its own ticket, and
    from the control: of a ticket the same one shuffled, of `permuted` and the signed ones the naive
    mask.
    """
    lines = [["target", "method", "source", "n", "trained %", "- random", "- own", "- control"]]
    for target in labels(summary):
        chance = accuracies(summary, target, "random")
        own = accuracies(summary, target, "ticket", target)
        for method in SHOWN:
            for source in [*labels(summary), ""]:
                mine = accuracies(summary, target, method, source)
                if mine:
                    found_on = "own" if mine == own else source
                    lines.append(
                        [
                            target,
                            method,
                            found_on if method == "ticket" else "",
                            str(len(mine)),
                            spread([*mine.values()]),
                            compared(mine, chance),
                            compared(mine, own),
                            compared(mine, control(summary, target, method, source)),
                        ]
                    )
    return aligned(lines)


def labels(summary: Sequence[Row]) -> list[str]:
    """The conditions, in the order of the run."""
    return list(dict.fromkeys(row["target"] for row in summary))


def accuracies(
    summary: Sequence[Row], target: str, method: str, source: str | None = None
) -> dict[int, float]:
    """Seed -> test accuracy, of the rows of a method on a target; None stands for any source."""
    return {
        row["seed"]: row["trained_accuracy"]
        for row in summary
        if (row["target"], row["method"]) == (target, method)
        and (source is None or (row["source"] or "") == source)
    }


def control(summary: Sequence[Row], target: str, method: str, source: str) -> dict[int, float]:
    """The accuracies that a method is compared with; empty if there are none."""
    if method == "ticket":
        return accuracies(summary, target, "shuffled", source)
    return accuracies(summary, target, "naive") if method in ACROSS[1:] else {}


def compared(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """The mean difference in points, and half the width of its interval.

    Empty if there is nothing to compare with, or both are the same trainings.
    """
    if not theirs or ours == theirs:
        return ""
    return difference(ours, theirs)
