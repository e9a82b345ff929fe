"""The result page of sign flips: who flips, what early flips predict, and pruning by flips."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.harness.tables import Row, aligned, difference_range, spread

RECORDS = ("summary.csv", "flips.csv", "predictors.csv")
FIGURE = "overview"
DENSE, PLAIN, BASELINE = "dense", "plain", "magnitude"
ALL = "all"
PREDICTORS = {"flips": "flips", "magnitude": "|w|", "hybrid1": "|w|/(flips+1)"}
"""Column of `predictors.csv` -> what predicts."""
Key = tuple[Any, ...]


def table(summary: Sequence[Row], flips: Sequence[Row], predictors: Sequence[Row]) -> str:
    """Four tables; all have mean ± sample standard deviation over seeds.

    Args:
      summary: a row for each rule, variant, rate, density and seed.
      flips: a row for each rate, density, layer and seed of the dense nets.
      predictors: likewise, for each early share of the training.
    """
    rate = best_rate([row for row in summary if row["rule"] == DENSE])
    parts = {
        "flips in dense training, and what magnitude keeps at its end": _flips(flips),
        f"early flips as predictors of the weights pruned at the end: area under the curve, "
        f"rate {rate:g}": _predictors([row for row in predictors if row["rate"] == rate]),
        "pruning while training, at the rate that is best on validation data": _best(summary),
        "pruning while training, at each rate": _rates(summary),
    }
    return "\n\n".join(f"{head}\n\n{text}" for head, text in parts.items())


def grouped(found: Sequence[Row], *fields: str) -> dict[Key, list[Row]]:
    """The fields' values -> rows, in order of first appearance."""
    groups: dict[Key, list[Row]] = {}
    for row in found:
        groups.setdefault(tuple(row[field] for field in fields), []).append(row)
    return groups


def best_rate(found: Sequence[Row]) -> float:
    """The learning rate with the highest mean validation accuracy over seeds."""
    means = {
        rate: np.mean([row["validation_accuracy"] for row in mine])
        for (rate,), mine in grouped(found, "rate").items()
    }
    return max(means, key=lambda rate: means[rate])


def at_best_rate(summary: Sequence[Row]) -> dict[Key, list[Row]]:
    """(density, rule, variant) -> the rows at the rate that is best for them."""
    groups = grouped(summary, "density", "rule", "variant")
    return {
        key: [row for row in mine if row["rate"] == best_rate(mine)] for key, mine in groups.items()
    }


def layers_of(found: Sequence[Row]) -> list[str]:
    """All weights together, then the layers, in the rows' order."""
    return list(dict.fromkeys(row["layer"] for row in found))


def _cell(found: Sequence[Row], field: str, scale: float = 1, digits: int = 2) -> str:
    """Mean and spread; empty if a row lacks the field."""
    values = [row[field] for row in found]
    return "" if None in values else spread(values, scale, digits)


def _flips(flips: Sequence[Row]) -> str:
    layers, densities = layers_of(flips), list(grouped(flips, "density"))
    head = ["rate", "n", "flips a weight", "never %", *(f"rho {layer}" for layer in layers)]
    head += [f"{who} at {d:g}" for (d,) in densities for who in ("kept", "pruned")]
    lines = [head]
    for (rate,), mine in grouped(flips, "rate").items():
        of = grouped(mine, "layer", "density")
        first = densities[0]
        every = of[(ALL, *first)]
        line = [f"{rate:g}", str(len(every)), _cell(every, "flips"), _cell(every, "never", 100, 1)]
        line += [_cell(of[(layer, *first)], "spearman") for layer in layers]
        for d in densities:
            line += [_cell(of[(ALL, *d)], field) for field in ("kept_flips", "pruned_flips")]
        lines.append(line)
    return aligned(lines)


def _predictors(predictors: Sequence[Row]) -> str:
    layers = layers_of(predictors)
    lines = [["predictor", "at % of training", "density", "n", *layers]]
    for (density, early), mine in grouped(predictors, "density", "early").items():
        of = grouped(mine, "layer")
        for field, name in PREDICTORS.items():
            areas = [_cell(of[(layer,)], field, digits=3) for layer in layers]
            count = str(len(of[(ALL,)]))
            lines.append([name, f"{100 * early:g}", f"{density:g}", count, *areas])
    return aligned(lines)


def _best(summary: Sequence[Row]) -> str:
    best = at_best_rate(summary)
    head = ["rule", "training", "density", "n", "rate", "test %", "validation %"]
    lines = [[*head, "less magnitude, plain", "less magnitude, same training"]]
    for (density, rule, variant), mine in sorted(best.items(), key=lambda item: -item[0][0]):
        lines.append(
            [
                *(rule, variant, f"{density:g}", str(len(mine)), f"{mine[0]['rate']:g}"),
                _cell(mine, "trained_accuracy", 100),
                _cell(mine, "validation_accuracy", 100),
                _less(mine, best.get((density, BASELINE, PLAIN), [])),
                _less(mine, best.get((density, BASELINE, variant), [])),
            ]
        )
    return aligned(lines)


def _less(mine: Sequence[Row], theirs: Sequence[Row]) -> str:
    """The paired difference in points and its 95 % interval; empty without another's rows."""
    if not theirs or mine is theirs:
        return ""
    ours, others = (
        {row["seed"]: row["trained_accuracy"] for row in found} for found in (mine, theirs)
    )
    return difference_range(ours, others)


def _rates(summary: Sequence[Row]) -> str:
    rates = list(grouped(summary, "rate"))
    columns = {"test": "trained_accuracy", "validation": "validation_accuracy"}
    head = ["rule", "training", "density", "n"]
    lines = [[*head, *(f"{name} % at {rate:g}" for name in columns for (rate,) in rates)]]
    groups = grouped(summary, "density", "rule", "variant")
    for (density, rule, variant), mine in sorted(groups.items(), key=lambda item: -item[0][0]):
        of = grouped(mine, "rate")
        cells = [_cell(of[rate], field, 100) for field in columns.values() for rate in rates]
        lines.append([rule, variant, f"{density:g}", str(len(of[rates[0]])), *cells])
    return aligned(lines)
