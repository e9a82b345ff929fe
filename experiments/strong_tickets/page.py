"""The result page of strong tickets: a row for each construction and number of coefficients."""

from collections.abc import Sequence

import numpy as np

from experiments.harness.tables import Row, aligned, spread

RECORDS = ("summary.csv",)
FIGURE = "errors"


def table(summary: Sequence[Row]) -> str:
    """Mean ± sample standard deviation over seeds; the largest error is that of all seeds.

    `within` is the share of the weights with an error of at most `--epsilon`, 0.01 by default.
    `same answers` are the test images that the rebuilt net and its target put into the same class.
    """
    lines = [
        [
            *("method", "coefficients", "n", "test %", "same answers %", "median error"),
            *(
                "mean",
                "largest",
                "within %",
                "random weights",
                "kept",
                "kept %",
                "seconds",
                "CPU seconds",
            ),
            "hidden layers",
        ]
    ]
    for (method, n), members in grouped(summary).items():
        rebuilt = n is not None
        kept = float(np.mean([row["kept_weights"] for row in members]))
        lines.append(
            [
                method,
                f"{n}" if rebuilt else "",
                str(len(members)),
                spread([row["test_accuracy"] for row in members]),
                spread([row["same_answers"] for row in members]) if rebuilt else "",
                f"{np.mean([row['median_error'] for row in members]):.1e}" if rebuilt else "",
                f"{np.mean([row['mean_error'] for row in members]):.1e}" if rebuilt else "",
                f"{max(row['largest_error'] for row in members):.1e}" if rebuilt else "",
                f"{100 * np.mean([row['within'] for row in members]):.3f}" if rebuilt else "",
                _count(members[0]["random_weights"]) if rebuilt else "",
                _count(kept),
                f"{100 * kept / members[0]['random_weights']:.1f}" if rebuilt else "",
                f"{np.mean([row['seconds'] for row in members]):.0f}",
                f"{np.mean([row['cpu_seconds'] for row in members]):.0f}" if rebuilt else "",
                members[0]["widths"],
            ]
        )
    return aligned(lines)


def grouped(summary: Sequence[Row]) -> dict[tuple[str, int | None], list[Row]]:
    """(method, coefficients) -> rows."""
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in summary:
        groups.setdefault((row["method"], row["coefficients"]), []).append(row)
    return groups


def _count(number: float) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number:.0f}"
