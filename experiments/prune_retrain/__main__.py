"""How many weights can threshold pruning remove if the net is retrained after every cut?

In each round the weights below a threshold are pruned, and the net is retrained from the remaining
trained weights. Nothing is rewound. A threshold is a quantile of |w| over the whole net, or a
multiple of each layer's standard deviation. Han et al., "Learning both weights and connections for
efficient neural networks", 2015.

    python -m experiments.prune_retrain
    python -m experiments.prune_retrain --rule=deviation --thresholds=0.5,1,1.5 --models=lenet5

The results are in experiments/prune_retrain/README.md, with n, spread, device and time.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.harness import records, rows, setup
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.flags import BatchSettings, RunSettings, define, numbers, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import build
from experiments.harness.session import finish_run, session_in
from experiments.harness.settings import MOST_EPOCHS, MOST_FACTOR, choose, option
from experiments.harness.trained_masks import LEADING
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.prune_retrain import figure, threshold_levels
from experiments.prune_retrain.page import table
from jaxtickets import nets, runs
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.thresholds import RULES

SMOKE: dict[str, Any] = {
    "train_images": 1000,
    "seeds": 1,
    "models": ("lenet300_100", "lenet5_29k"),
    "thresholds": (0.5, 0.9),
    "rounds": 2,
    "retrain_epochs": 1,
    "epochs": 1,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """How nets are pruned and retrained. Each field is also a flag of the same name."""

    models: tuple = option((), "several nets in place of --model; empty: --model only")
    rule: str = option("quantile", "meaning of a threshold", RULES)
    thresholds: tuple = option(
        (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "thresholds: quantiles, or multiples of the standard deviation",
        above=0,
        most=1e9,
    )
    rounds: int = option(10, "number of cuts, each followed by retraining", least=1, most=10**4)
    retrain_epochs: int = option(
        2, "epochs of retraining after each cut", least=1, most=MOST_EPOCHS
    )
    retrain_rate: float = option(
        1.0,
        "learning rate of retraining, as a factor of --learning_rate",
        above=0,
        most=MOST_FACTOR,
    )
    scale_dropout: bool = option(
        False, "scale the dropout rate by the square root of the seeds' mean density"
    )


GROUPS = (
    RunSettings(),
    StoreSettings(),
    Question(),
    NetSettings(model="lenet300_100"),
    TrainSettings(learning_rates="constant", epochs=10),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains, prunes and retrains each net, draws."""
    place, store, *parts = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    question, net, train, batch = parts
    thresholds = _check(question)
    setup.start(place, batch.precision)
    axis = runs.axis(batch.mode, batch.width)
    again_train = dataclasses.replace(
        train,
        learning_rate=train.learning_rate * question.retrain_rate,
        epochs=question.retrain_epochs,
        iterations=0,
        look_every=0,
        test_every=0,
    )
    models = question.models or (net.model,)
    of_models = [dataclasses.replace(net, model=name) for name in models]
    built, retraining = (
        [build(one, how, place.data_dir, place.prepare, batch.precision) for one in of_models]
        for how in (train, again_train)
    )
    for problem in built if question.scale_dropout else ():
        if "dropout" not in nets.to_json(problem.net):
            raise UserError(f"--scale_dropout: {nets.name_of(problem.net)} has no dropout")
    run = records.open_run_of_flags("prune_retrain", place, parts, axis)

    summary: list[dict[str, Any]] = []
    for name, problem, again in zip(models, built, retraining, strict=True):
        folder = run.folder / name
        folder.mkdir(exist_ok=True)
        session = session_in(folder, place, axis, problem, net)
        dense = dense_nets(session, train, store)
        summary += threshold_levels.counted(name, problem, dense.summary, "dense")
        found = threshold_levels.prune_and_retrain(
            session,
            again,
            dense,
            thresholds,
            question.rule,
            question.rounds,
            question.scale_dropout,
        )
        summary += threshold_levels.counted(name, problem, found, question.rule)
        rows.write_summary(run.folder, summary, *LEADING)
        figure.draw_pruning(run.folder)
    print(table(rows.read_summary(run.folder)))
    finish_run(run.folder)


def _check(question: Question) -> tuple[float, ...]:
    """The thresholds; raises UserError if a setting is invalid."""
    if question.models and flags.FLAGS["model"].present:
        raise UserError("--model and --models: give one of them")
    for name in question.models:
        choose("model", name, nets.names())
    values = numbers("thresholds", question.thresholds)
    if question.rule != "deviation" and max(values) >= 1:
        raise UserError(f"--thresholds={max(values):g}: must be above 0 and below 1")
    return values


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
