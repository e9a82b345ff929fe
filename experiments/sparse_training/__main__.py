"""Which way of moving a mask while the net trains gives the most accurate sparse net?

Every method trains the same nets, for the same number of steps, to the same densities: one batch of
densities and seeds a method. Beside them stand the dense net and `static`, whose random mask never
changes; `static_uniform` has the same density in all layers. `METHOD+ham` and
`METHOD+powerpropagation` change the inner optimiser of a method. Each last mask is then trained
alone, from the first weights, unless --norewind: is it a ticket?

    python -m experiments.sparse_training
    python -m experiments.sparse_training --methods=dense,static,rigl,rigl+ham --density=0.02,0.01

Tickets are kept in the run's folder, so that criterion_comparison, mask_similarity and
linear_connectivity take them (--tickets). The results are in experiments/sparse_training/README.md,
with n, spread, device and time.
"""

import dataclasses
from collections.abc import Sequence

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
from experiments.harness.settings import option
from experiments.harness.trained_masks import before_trainings, save_entry, train_in_parts
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from experiments.sparse_training import dynamic_runs, plans
from experiments.sparse_training.figure import draw_accuracies, draw_layers, draw_training
from experiments.sparse_training.page import table
from experiments.sparse_training.plans import NAMES, DynamicSettings
from experiments.sparse_training.presets import DEFAULT, PRESETS
from jaxtickets.dynamic.methods import INNERS
from jaxtickets.io.errors import UserError

LEADING = ("method", "check", "density", "seed", "trained_accuracy", "validation_accuracy")


@dataclasses.dataclass(frozen=True)
class Question:
    """The methods and densities. Each field is also a flag of the same name."""

    methods: tuple = option(
        NAMES, f"of {', '.join(NAMES)}, each alone or with +{' or +'.join(INNERS)}"
    )
    density: tuple = option((0.1, 0.05, 0.02), "kept fractions of the weights", above=0, below=1)
    rewind: bool = option(True, "train the last masks alone, too, from the first weights")


GROUPS = (
    RunSettings(),
    Question(),
    DynamicSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains by each method, trains the tickets, reports."""
    place, *parts = read_all(GROUPS, preset_of(PRESETS))
    question, settings, net, train, _ = parts
    refuse_idle(IDLE, parts)
    _refuse_without(question.methods, alpha="ham", begin="granet")
    densities = numbers("density", question.density)
    methods = [plans.find(name) for name in question.methods]
    axis, problem = set_up(place, parts, photographs=True)
    plans.check(methods, densities, settings, problem, net.seeds)
    session = start_run("sparse_training", place, parts, axis, problem)

    summary, tickets = [], []
    each = len(densities) * net.seeds
    rewound = question.rewind * each * sum(one.method is not None for one in methods)
    for i, one in enumerate(methods, 1):
        known = before_trainings(session, (len(methods) - i) * each + rewound)
        done, masks = dynamic_runs.train(known, one, densities, settings, train)
        summary += done
        tickets += masks if one.method is not None else []
        rows.write_summary(session.folder, summary, *LEADING)
    for ticket in tickets:
        save_entry(session.folder, problem, ticket, 0)
    if question.rewind:
        summary += train_in_parts(session._replace(later=0.0), "rewound", tickets)

    rows.write_summary(session.folder, summary, *LEADING)
    draw_accuracies(session.folder)
    draw_training(session.folder)
    draw_layers(session.folder)
    print(table(summary))
    finish_run(session.folder)


def _refuse_without(methods: Sequence[str], **words: str) -> None:
    """Refuses a flag that has no effect as no method's name has its word."""
    for flag, word in words.items():
        if flags.FLAGS[flag].present and not any(word in name for name in methods):
            raise UserError(f"--{flag}: has no effect without {word} in --methods")


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
