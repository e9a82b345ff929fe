"""How few weights does a net keep if its training decides what it keeps?

Gates, variational posteriors and penalties prune while the net trains; a strength says how much.
Each method is trained at several strengths, all strengths and seeds in one batch, and its net is
hardened by the method's own threshold, or to the exact counts of --density. Beside them stand the
dense net, gradual pruning and GraNet, magnitude pruning at once and in levels with rewinding, and
random masks.

    python -m experiments.learned_sparsity
    python -m experiments.learned_sparsity --density=0.05,0.02 --retrain_epochs=5
    python -m experiments.learned_sparsity --methods=group_lasso,gradual --strengths=1e-4,1e-3

Each result is kept as a ticket in the run's folder. Nets that have lost whole units are cut, and
their latency is measured. The results are in experiments/learned_sparsity/README.md, with n,
spread, device and time.
"""

from absl import flags

from experiments.harness import rows
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    preset_of,
    read_all,
    refuse_idle,
    with_preset,
)
from experiments.harness.main import run_main
from experiments.harness.rows import Row
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import Except, Idle
from experiments.harness.trained_masks import before_trainings
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from experiments.learned_sparsity import comparison, cuts, figure, page, retraining
from experiments.learned_sparsity.comparison import LEADING
from experiments.learned_sparsity.presets import DEFAULT, PRESETS
from experiments.learned_sparsity.settings import LearnSettings

GROUPS = (
    RunSettings(),
    StoreSettings(),
    LearnSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)
WITHOUT_EFFECT: Idle = {
    **IDLE,
    "control_density": ({"density": Except(((),))},),
    "retrain_rate": ({"retrain_epochs": (0,)},),
}


def main() -> None:
    """Reads and checks the flags, trains by each method, cuts and measures, reports."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    settings, net, train, _ = parts
    refuse_idle(WITHOUT_EFFECT, parts)
    axis, problem = set_up(place, parts)
    comparison.check(settings, train, problem, axis, net.seeds)
    session = start_run("learned_sparsity", place, parts, axis, problem)
    then = [
        comparison.trainings(method, settings, train, problem, net.seeds)
        for method in settings.methods
    ]
    dense = dense_nets(before_trainings(session, sum(then)), train, store)

    first = comparison.dense_rows(session, dense)
    made: list[Row] = []
    for i, method in enumerate(settings.methods):
        known = before_trainings(session, sum(then[i + 1 :]))
        made += comparison.train_method(known, method, settings, train, dense)
        rows.write_summary(session.folder, [*first, *made], *LEADING)
    if settings.retrain_epochs:
        made = retraining.retrain(before_trainings(session, 0), settings, train, made)
    summary = [*first, *cuts.cut(session, made, dense, settings.repeats)]

    rows.write_summary(session.folder, summary, *LEADING)
    figure.draw_accuracies(session.folder)
    figure.draw_multiply_adds(session.folder)
    figure.draw_tickets(session.folder, problem.prunable, problem.image_shape)
    print(page.table(summary))
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
