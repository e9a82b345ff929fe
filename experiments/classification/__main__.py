"""Does a Bayesian net classify better, know better what it doesn't know, and stand being pruned?

The same net is trained deterministically, by Bayes by Backprop, and by MOPED from the dense net.
Each is then pruned, and trained again; and Bayesian nets are trained under the mask of the dense
net's largest weights. All are measured alike: accuracy, likelihood, calibration, and uncertainty on
test images and on others.

    python -m experiments.classification
    python -m experiments.classification --preset=mnist
    python -m experiments.classification --models=lenet5,scnn --datasets=mnist,fashion_mnist
    python -m experiments.classification --dense_nets=FOLDER/tickets/trained-level00-*

The results are in experiments/classification/README.md, with n, spread, device and time.
"""

import dataclasses

from absl import flags

from experiments.classification import classifiers, figure, given_nets, page
from experiments.classification.measured_rows import LEADING, measure
from experiments.classification.methods import BayesSettings
from experiments.classification.presets import DEFAULT, PRESETS
from experiments.classification.settings import ClassifySettings, check
from experiments.harness import records, rows, setup
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
from experiments.harness.problem import build
from experiments.harness.rows import Row
from experiments.harness.session import finish_run, refuse_photographs, session_in
from experiments.harness.settings import Except, Idle, Without
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from jaxtickets import nets, runs

GROUPS = (
    RunSettings(),
    StoreSettings(),
    ClassifySettings(),
    BayesSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)
GAUSSIAN = Except(("scale_mixture",))
WITHOUT_EFFECT: Idle = {
    **IDLE,
    "dense_store": ({"dense_nets": Except(((),))},),
    "model": ({"models": Except(((),))},),
    "dataset": ({"datasets": Except(((),))},),
    "prior": ({"methods": Without(("bayes_by_backprop",))},),
    "prior_pi": ({"prior": GAUSSIAN},),
    "prior_widths": ({"prior": GAUSSIAN},),
    "prior_width": ({"prior": ("scale_mixture",), "methods": Without(("moped",))},),
    "deviation": ({"methods": Without(("bayes_by_backprop",))},),
    "delta": ({"methods": Without(("moped",))},),
    "floor": ({"density": ((),)},),
    "retrain_epochs": ({"density": ((),)},),
    "retrain_rate": ({"density": ((),)}, {"retrain_epochs": (0,)}),
    "transplant": ({"density": ((),)},),
}


def main() -> None:
    """Reads and checks the flags, trains and measures each net on each data set, reports."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    settings, bayes, net, train, batch = parts
    refuse_idle(WITHOUT_EFFECT, parts)
    setup.start(place, batch.precision)
    axis = runs.axis(batch.mode, batch.width)
    built, others, given = [], [], []
    seeds = range(net.seed, net.seed + net.seeds)
    for dataset in settings.datasets or (net.dataset,):
        for model in settings.models or (net.model,):
            one = dataclasses.replace(net, model=model, dataset=dataset)
            refuse_photographs(one)
            problem = build(one, train, place.data_dir, place.prepare, batch.precision)
            others.append(check(settings, bayes, problem, net.seeds, place.data_dir))
            built.append(problem)
            if settings.dense_nets:
                given.append(given_nets.find(settings.dense_nets, problem, seeds))
    if given:
        parts[0] = dataclasses.replace(settings, dense_nets=given[0][0])
    run = records.open_run_of_flags("classification", place, parts, axis)

    summary: list[Row] = []
    curves: list[Row] = []
    for i, (problem, other) in enumerate(zip(built, others, strict=True)):
        folder = run.folder / f"{nets.name_of(problem.net)}-{problem.dataset.name}"
        folder.mkdir(exist_ok=True)
        session = session_in(folder, place, axis, problem, net)
        dense = given[i][1] if given else dense_nets(session, train, store)
        batches = classifiers.batches(session, settings, bayes, train, dense)
        made, drawn = measure(session, settings, batches, other)
        summary += made
        curves += drawn
        rows.write_summary(run.folder, summary, *LEADING)
        rows.write_csv(run.folder / figure.CURVES, curves)

    figure.draw_reliability(run.folder)
    figure.draw_entropy(run.folder)
    figure.draw_rejection(run.folder)
    figure.draw_shifts(run.folder)
    print(page.table(summary))
    finish_run(run.folder)


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
