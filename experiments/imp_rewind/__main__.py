"""Does a trained net contain a small one that trains as well from the same initialisation?

Iterative magnitude pruning with rewinding: train, prune a fraction of the remaining weights, rewind
the others, repeat. At every level the ticket is compared with its mask on new initialisations and
with random sparse nets. All replicates are trained in one batch. Frankle and Carbin, "The lottery
ticket hypothesis", 2019.

    python -m experiments.imp_rewind
    python -m experiments.imp_rewind --preset=lth --model=lenet300_100 --data_dir=FOLDER
    python -m experiments.imp_rewind --rates=0.1,0.01 --optimizer=momentum

The results are in experiments/imp_rewind/README.md, with n, spread, device and time.
"""

import dataclasses
import itertools
from typing import Any

from absl import flags

from experiments.harness import memory, rows, trained_masks
from experiments.harness.canvas import now_and_then
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    numbers,
    read_all,
    whole_numbers,
)
from experiments.harness.imp_plan import ImpSettings, imp_plan
from experiments.harness.imp_presets import SHORT, preset
from experiments.harness.levels import descend
from experiments.harness.lineages import LevelPlan, lineages_of
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import MOST_FACTOR, MOST_RUNS, MOST_STEPS, option
from experiments.harness.training_runs import chunk_plan
from experiments.harness.training_settings import NetSettings
from experiments.imp_rewind import figure
from experiments.imp_rewind.page import table
from jaxtickets.io.errors import UserError
from jaxtickets.recipes import imp


@dataclasses.dataclass(frozen=True)
class Question:
    """The controls of tickets, and the learning rates to compare."""

    reinits: int = option(
        1, "controls per ticket: its mask on a new initialisation", least=0, most=MOST_RUNS
    )
    randoms: int = option(1, "controls per ticket: a random sparse net", least=0, most=MOST_RUNS)
    controls_every: int = option(
        1,
        "train reinits and randoms at every n-th level only, and at the last",
        least=1,
        most=1000,
    )
    control_levels: tuple = option(
        (), "levels that also train one of every other control per ticket", least=1, most=1000
    )
    rates: tuple = option(
        (), "learning rates to compare; empty: --learning_rate only", above=0, most=MOST_FACTOR
    )
    warmups: tuple = option(
        (), "warm-up steps to compare; empty: --warmup only", least=0, most=MOST_STEPS
    )


GROUPS = (
    Question(),
    ImpSettings(),
    NetSettings(model="lenet300_100"),
    dataclasses.replace(SHORT, test_every=50),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains and prunes level by level, draws."""
    place, *parts = _read()
    question, settings, net, train, _ = parts
    axis, problem = set_up(place, parts, photographs=True)
    if settings.rewind == "none" and train.learning_rates == "cosine":
        raise UserError(
            "--rewind=none keeps the final learning rate, which --learning_rates=cosine brings "
            "to 0: choose constant or steps"
        )
    try:
        plan, rewind = _plan(question, settings, problem)
    except ValueError as error:
        raise UserError(str(error)) from error
    rates = numbers("rates", question.rates or (train.learning_rate,))
    warmups = whole_numbers("warmups", question.warmups) or (int(problem.hyper.warmup),)
    lines = len(rates) * len(warmups) * net.seeds
    memory.check_memory(
        f"--seeds={net.seeds} --reinits={question.reinits} --randoms={question.randoms}",
        lines * (1 + question.reinits + question.randoms),
        memory.training(problem.param_shapes),
        "trainings of a level",
    )
    session = start_run("imp_rewind", place, parts, axis, problem)._replace(later=0.0)
    draw_if_due = now_and_then(figure.draw_all)
    lines = lineages_of(session.seeds, list(itertools.product(rates, warmups)), rewind)

    def report(summary: list[dict[str, Any]]) -> None:
        rows.write_summary(session.folder, summary, *trained_masks.LEADING)
        if summary[-1]["level"]:
            draw_if_due(session.folder)

    summary = descend(session, plan, lines, after=report)
    figure.draw_all(session.folder)
    print(table(summary))
    finish_run(session.folder)


def _plan(question: Question, settings: ImpSettings, problem: Problem) -> tuple[LevelPlan, int]:
    """The plan of the levels, and the step to which tickets are rewound.

    Raises:
      ValueError: a setting is invalid.
    """
    copies = {"reinit": question.reinits, "random": question.randoms}
    controls = whole_numbers("control_levels", question.control_levels)
    for level in controls:
        if not 1 <= level <= settings.levels:
            raise ValueError(f"control_levels={level}: levels go from 1 to {settings.levels}")
    every, epoch = problem.recipe.every, problem.epoch_steps
    rewind = imp.rewind_step(settings.rewind_step, problem.steps, epoch, every)
    how = imp.level_training(settings.rewind, rewind, problem.steps)
    chunk_plan(problem, [how.start], how.end)
    more = {"copies_every": question.controls_every, "control_levels": controls}
    return imp_plan(problem, settings, copies, **more), rewind


def _read() -> list[Any]:
    """The settings of all groups: from explicit flags, then the preset, then the defaults."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    asked = flags.FLAGS.dataset if flags.FLAGS["dataset"].present else ""
    chosen = preset(name, flags.FLAGS.model, asked)
    return read_all((RunSettings(), *GROUPS), chosen)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: lth, openlth or smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(RunSettings(), *GROUPS)
    run_main(main)
