"""How many weights can one cut remove, and to which epoch should the others be rewound?

Each seed has one dense training, of which the weights at several epochs are kept. The smallest
trained weights are pruned by each of several thresholds, and the others are rewound to each of
several epochs. Every cell of this grid is trained, beside a random mask for each cell and a new
initialisation for each threshold, all in one batch.

    python -m experiments.ticket_grid

The results are in experiments/ticket_grid/README.md, with n, spread, device and time.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.harness import rows, trained_masks
from experiments.harness.dense_store import dense_entry
from experiments.harness.flags import BatchSettings, RunSettings, define, numbers, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import MOST_EPOCHS, MOST_RUNS, option
from experiments.harness.trained_masks import train_entries, train_in_parts
from experiments.harness.training_runs import chunk_plan
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.ticket_grid import batching_cost, cells, figure
from experiments.ticket_grid.page import table
from jaxtickets import allocation, masks, runs
from jaxtickets.io.errors import UserError

THRESHOLDS = (60, 65, 70, 75, 80, *range(85, 100))
SMOKE: dict[str, Any] = {
    "widths": "30,20",
    "seeds": 2,
    "thresholds": (60, 90),
    "rewinds": (0, 1),
    "epochs": 2,
    "part": 4,
    "cost_trainings": 2,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """The grid. Each field is also a flag of the same name."""

    thresholds: tuple = option(
        THRESHOLDS, "pruned fractions of the prunable weights, in %", above=0, below=100
    )
    rewinds: tuple = option(
        (0, 1, 2, 5), "epochs to which the kept weights are rewound", least=0, most=MOST_EPOCHS
    )
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=10**9)
    part: int = option(
        0, "trainings at a time; 0: as many as take about 3 GB", least=0, most=MOST_RUNS
    )
    cost_trainings: int = option(
        16,
        "number of trainings that are timed in series and batched; 0: none",
        least=0,
        most=MOST_RUNS,
    )


GROUPS = (
    Question(),
    NetSettings(model="lenet300_100"),
    TrainSettings(learning_rate=1.2e-3, learning_rates="constant", batch_size=60, epochs=10),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains the dense nets and the grid, draws."""
    place, *parts = read_all((RunSettings(), *GROUPS), SMOKE if flags.FLAGS.smoke else {})
    question = parts[0]
    axis, problem = set_up(place, parts, photographs=True)
    try:
        rewinds, keep = _check(question, problem)
    except ValueError as error:
        raise UserError(str(error)) from error
    session = start_run("ticket_grid", place, parts, axis, problem)
    whole = [dense_entry(problem, one) for one in session.seeds]
    steps = tuple(rewind * problem.epoch_steps for rewind in rewinds)
    ends, summary = train_entries(session, "dense", whole, keep_at=steps)
    entries = cells.grid(session, keep, rewinds, question.floor, ends)
    last = session._replace(later=0.0)
    summary += train_in_parts(last, "grid", entries, most=question.part)

    rows.write_summary(session.folder, summary, *trained_masks.LEADING)
    figure.draw_grid(session.folder)
    print(table(summary))
    if question.cost_trainings:
        some = runs.stack([e.start for e in entries[: question.cost_trainings]])
        costs = batching_cost.compare(problem, axis, some, session.data)
        rows.write_csv(session.folder / "cost.csv", costs)
        many, length = costs[0]["trainings"], costs[0]["steps"]
        print(f"\ntime of {many} trainings of {length} steps:\n{batching_cost.table(costs)}")
        spent = sum(row["seconds"] for row in summary)
        steps_done = sum(row["train_steps"] for row in summary)
        print(f"the grid: {len(summary)} trainings, {steps_done} steps, {spent:.0f} s")
    finish_run(session.folder)


def _check(question: Question, problem: Problem) -> tuple[list[int], dict[float, int]]:
    """The rewind epochs, and threshold -> number of kept weights.

    Raises:
      ValueError: a setting is invalid.
    """
    shapes, epoch = masks.shapes(problem.param_shapes, problem.prunable), problem.epoch_steps
    keep = {
        threshold: allocation.global_(shapes, 1 - threshold / 100, question.floor)
        for threshold in sorted(set(numbers("thresholds", question.thresholds)))
    }
    rewinds = sorted(set(numbers("rewinds", question.rewinds)))
    for rewind in rewinds:
        if rewind != int(rewind) or not 0 <= rewind * epoch < problem.steps:
            raise ValueError(
                f"rewinds={rewind:g}: must be whole epochs of the training, which has "
                f"{problem.steps / epoch:g}"
            )
    chunk_plan(problem, [0, *(int(rewind) * epoch for rewind in rewinds)], problem.steps)
    return [int(rewind) for rewind in rewinds], keep


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(RunSettings(), *GROUPS)
    run_main(main)
