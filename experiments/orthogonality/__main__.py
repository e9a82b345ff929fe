"""Do masks train better if their masked layers are nearly orthogonal?

The orthogonality score of every mask's layers at the initialisation is compared with the accuracy
to which the mask trains. The same masks are also trained after a repair, which moves their weights
towards orthogonality by gradient descent.

    python -m experiments.orthogonality
    python -m experiments.orthogonality --tickets=annealed=runs/sa_search/*/tickets/*

The results are in experiments/orthogonality/README.md, with n, spread, device and time.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.harness import candidate_masks, rows, trained_masks
from experiments.harness.dense_store import StoreSettings, dense_entry
from experiments.harness.flags import RunSettings, define, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.session import finish_run, set_up
from experiments.harness.settings import MOST_FACTOR, option
from experiments.harness.trained_masks import Entry, before_trainings, train_entries
from experiments.orthogonality import figure
from experiments.orthogonality.page import table
from jaxtickets import runs
from jaxtickets.analysis import orthogonality
from jaxtickets.runs import Axis
from jaxtickets.types import Mask, Params

SMOKE: dict[str, Any] = {
    "widths": "100,50",
    "train_images": 1000,
    "batch_size": 40,
    "seeds": 2,
    "criteria": ("random", "magnitude", "snip"),
    "epochs": 1,
    "repair_steps": 20,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """The repair of masked layers. Each field is also a flag of the same name."""

    repair_steps: int = option(
        1000, "steps of gradient descent on the score; 0: no repair", least=0, most=10**6
    )
    repair_rate: float = option(0.1, "learning rate of the repair", above=0, most=MOST_FACTOR)


GROUPS = (RunSettings(), StoreSettings(), Question(), *candidate_masks.GROUPS)


def main() -> None:
    """Reads and checks the flags, makes, scores, repairs and trains the masks, draws."""
    place, store, question, *parts = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    axis, problem = set_up(place, parts)
    spec = question, *parts
    made = candidate_masks.start_candidates(
        "orthogonality", place, store, spec, axis, problem, trained=True
    )
    entries = made.entries
    if question.repair_steps:
        entries = [*entries, *_repaired(problem, axis, entries, question)]
    before = [*(dense_entry(problem, one) for one in made.session.seeds), *entries]
    summary = made.summary + train_entries(before_trainings(made.session, 0), "train", entries)[1]
    for row, score in zip(summary, _scores(problem, axis, before), strict=True):
        row["orthogonality"] = round(float(score), 8)

    rows.write_summary(made.session.folder, summary, *trained_masks.CHECKED)
    figure.draw_orthogonality(made.session.folder)
    print(table(summary))
    finish_run(made.session.folder)


def _scores(problem: Problem, axis: Axis, entries: list[Entry]) -> np.ndarray:
    """float`[entries]`: the `orthogonality.score` of each entry before training."""

    def one(row: tuple[Params, Mask]) -> jax.Array:
        params, mask = row
        return orthogonality.score(params, mask, problem.prunable)

    rows_of = runs.stack([(entry.start.params, entry.start.mask) for entry in entries])
    return np.asarray(runs.over_runs(one, axis, rows_of))


def _repaired(
    problem: Problem, axis: Axis, entries: list[Entry], question: Question
) -> list[Entry]:
    """The entries with repaired weights."""

    def one(row: tuple[Params, Mask]) -> Params:
        params, mask = row
        steps, rate = question.repair_steps, question.repair_rate
        return orthogonality.repair(params, mask, problem.prunable, steps, rate)

    rows_of = runs.stack([(entry.start.params, entry.start.mask) for entry in entries])
    params = runs.over_runs(one, axis, rows_of)
    return [
        Entry(
            entry.name | {"check": "repaired"},
            entry.start._replace(params=runs.take(params, i)),
        )
        for i, entry in enumerate(entries)
    ]


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
