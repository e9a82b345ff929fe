"""Are the weights whose signs flip often in training the ones to prune?

Dense nets are trained, and the flips of each weight's sign are counted: by layer, over time,
against the weight's final size, and against its survival of magnitude pruning in the end. Do flips
early in the training tell what will be pruned? Then nets are pruned while they train, by the same
plan of cuts: by magnitude, by flips, by |w|^p / (flips + 1), at random; with gradient noise, and
with a random learning rate for each feature (Alrao), too.

    python -m experiments.sign_flips
    python -m experiments.sign_flips --rules=magnitude,hybrid2 --variants=plain,noise --density=0.01
    python -m experiments.sign_flips --preset=conv4 --data_dir=FOLDER

The results are in experiments/sign_flips/README.md, with n, spread, device and time.
"""

import dataclasses

from absl import flags

from experiments.harness import rows
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    numbers,
    preset_of,
    read_all,
    refuse_idle,
    with_preset,
)
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import MOST_FACTOR, Idle, Without, option
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from experiments.sign_flips import dense_flips, pruning_runs
from experiments.sign_flips.figure import draw_accuracies, draw_flips, draw_overview
from experiments.sign_flips.page import RECORDS, table
from experiments.sign_flips.presets import DEFAULT, PRESETS
from experiments.sign_flips.pruning_runs import RULES, VARIANTS, PruningSettings, variants_of
from jaxtickets.io.errors import UserError

LEADING = ("rule", "variant", "rate", "density", "seed", "trained_accuracy", "validation_accuracy")


@dataclasses.dataclass(frozen=True)
class Question:
    """What is compared. Each field is also a flag of the same name."""

    rules: tuple = option(tuple(RULES), "what is pruned first", tuple(RULES))
    variants: tuple = option(tuple(VARIANTS), "how nets are trained meanwhile", tuple(VARIANTS))
    rates: tuple = option((0.005, 0.015, 0.05), "learning rates", above=0, most=MOST_FACTOR)
    density: tuple = option((0.1, 0.02), "kept fractions of the weights", above=0, below=1)
    early: tuple = option(
        (0.1, 0.2, 0.5), "shares of dense trainings whose flips predict pruning", above=0, below=1
    )


GROUPS = (
    RunSettings(),
    Question(),
    PruningSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)
WITHOUT: Idle = {
    **IDLE,
    "noise": ({"variants": Without(("noise",))},),
    "alrao_least": ({"variants": Without(("alrao",))},),
    "alrao_most": ({"variants": Without(("alrao",))},),
}


def main() -> None:
    """Reads and checks the flags, counts flips in dense nets, prunes by each rule, reports."""
    place, *parts = read_all(GROUPS, preset_of(PRESETS))
    question, settings, net, _, _ = parts
    refuse_idle(WITHOUT, parts)
    if flags.FLAGS["learning_rate"].present:
        raise UserError("--learning_rate: give --rates instead")
    rates, densities = numbers("rates", question.rates), numbers("density", question.density)
    early = numbers("early", question.early)
    axis, problem = set_up(place, parts)
    pruning_runs.check(densities, early, len(rates) * net.seeds, settings, problem)
    session = start_run("sign_flips", place, parts, axis, problem)

    dense = dense_flips.train(session, rates, densities, early)
    summary = list(dense.summary)
    for name in ("flips", "predictors", "bins"):
        rows.write_csv(session.folder / f"{name}.csv", getattr(dense, name))
    rows.write_summary(session.folder, summary, *LEADING)
    draw_flips(session.folder)
    for rule in question.rules:
        for variant in variants_of(rule, question.variants):
            summary += pruning_runs.train(session, rule, variant, rates, densities, settings)
            rows.write_summary(session.folder, summary, *LEADING)

    draw_overview(session.folder)
    draw_accuracies(session.folder)
    print(table(*(rows.read_csv(session.folder / name) for name in RECORDS)))
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
