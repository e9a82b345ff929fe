"""How many weights can one cut remove, and to which epoch should the others be rewound?

Each seed has one dense training, of which the weights at several epochs are kept. The smallest
trained weights are pruned by each of several thresholds, and the others are rewound to each of
several epochs. Every cell of this grid is trained, beside a random mask for each cell and a new
initialisation for each threshold, all in one batch.

    python -m experiments.ticket_grid
    python -m experiments.ticket_grid --preset=mobilenet_v2_small --data_dir=FOLDER
    python -m experiments.ticket_grid --preset=mobilenet_v2 --estimate

The results are in experiments/ticket_grid/README.md, with n, spread, device and time.
"""

from collections.abc import Sequence
from functools import partial

from absl import flags

from experiments.harness import records, rows, setup, shared_parts, trained_masks
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    preset_of,
    read_all,
)
from experiments.harness.main import run_main
from experiments.harness.rows import Row
from experiments.harness.session import Session, finish_run, session_in, set_up
from experiments.harness.shared_parts import ShareSettings
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import Start
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.ticket_grid import (
    batching_cost,
    cells,
    estimate,
    figure,
    problems,
    step_profile,
    trainings,
)
from experiments.ticket_grid.page import accuracies
from experiments.ticket_grid.presets import DEFAULT, PRESETS
from experiments.ticket_grid.settings import Question
from jaxtickets import runs
from jaxtickets.io.errors import UserError

GROUPS = (
    Question(),
    NetSettings(model="lenet300_100"),
    TrainSettings(learning_rate=1.2e-3, learning_rates="constant", batch_size=60, epochs=10),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains the dense nets and the grid, reports."""
    share, place, *parts = read_all((ShareSettings(), RunSettings(), *GROUPS), preset_of(PRESETS))
    question, net, train, batch = parts
    if flags.FLAGS.estimate:
        setup.start(place, batch.precision)
        module, shape = estimate.planned_net(question, net)
        print(f"{setup.describe_devices()}: nothing is trained")
        print(estimate.report(module, shape, question, net, train))
        return
    axis, problem = set_up(place, parts, photographs=True)
    problem = problems.in_form(problem, question.form)
    shared_parts.check(share, place.out)
    try:
        rewinds, keep = problems.check(question, problem)
    except ValueError as error:
        raise UserError(str(error)) from error
    run = records.open_run_of_flags("ticket_grid", place, parts, axis, share.share_cells)
    session = session_in(run.folder, place, axis, problem, net)
    steps = tuple(rewind * problem.epoch_steps for rewind in rewinds)
    ends, summary = trainings.train_dense(session, steps, share)
    entries = cells.grid(session, keep, rewinds, question.floor, ends)
    summary += trainings.train_cells(session, entries, question.part, share)
    trainings.by_one(session, share, partial(_report, session, question, entries, summary))
    finish_run(session.folder)


def _report(
    session: Session, question: Question, entries: Sequence[Entry], summary: list[Row]
) -> None:
    """Writes and prints the table, draws the figure, and times some of the trainings."""
    rows.write_summary(session.folder, summary, *trained_masks.LEADING)
    figure.draw_grid(session.folder)
    print(accuracies(summary))
    if question.cost_trainings:
        _measure(session, [entry.start for entry in entries[: question.cost_trainings]])
        spent = sum(row["seconds"] for row in summary)
        steps = sum(row["train_steps"] for row in summary)
        print(f"the grid: {len(summary)} trainings, {steps} steps, {spent:.0f} s")


def _measure(session: Session, starts: Sequence[Start]) -> None:
    """Times trainings in several ways, and where the time of a block of them goes."""
    problem, axis, data = session.problem, session.axis, session.data
    some = runs.stack(starts)
    costs = batching_cost.compare(problem, axis, some, data)
    rows.write_csv(session.folder / "cost.csv", costs)
    print(f"\n{batching_cost.table(costs)}")
    if note := batching_cost.shared_cores(axis):
        print(note)
    profile = batching_cost.profile(problem, axis, some, data)
    rows.write_csv(session.folder / "profile.csv", profile)
    figure.draw_cost(session.folder)
    print(f"\n{step_profile.table(profile)}")


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("estimate", False, "say what the grid would cost and end; needs no data")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(ShareSettings(), RunSettings(), *GROUPS)
    run_main(main)
