"""From which step on is training stable to the order of its data, and do tickets win from there?

Two trainings start from the same rewind step and see the data in different orders. The test error
is evaluated on the straight line between the two trained nets. A low error barrier means that both
end in one basin. This is repeated at every level of iterative pruning, for the ticket and for a
random mask on the same weights. Frankle et al., "Linear mode connectivity and the lottery ticket
hypothesis", 2020.

    python -m experiments.linear_connectivity

The results are in experiments/linear_connectivity/README.md, with n, spread, device and time.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.harness import rows, trained_masks
from experiments.harness.flags import BatchSettings, RunSettings, define, read_all
from experiments.harness.imp_plan import ImpSettings, imp_plan
from experiments.harness.imp_presets import SHORT
from experiments.harness.levels import descend
from experiments.harness.lineages import Lineage
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import option
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import chunk_plan
from experiments.harness.training_settings import NetSettings
from experiments.linear_connectivity import figure, interpolation_pairs
from experiments.linear_connectivity.page import table
from experiments.linear_connectivity.rewound_nets import rewound_nets
from jaxtickets.analysis import interpolation
from jaxtickets.io.errors import UserError
from jaxtickets.recipes import imp
from jaxtickets.training import Watched

SMOKE: dict[str, Any] = {
    "widths": "30,20",
    "batch_size": 32,
    "seeds": 1,
    "levels": 1,
    "rewinds": ("0", "20"),
    "points": 3,
    "iterations": 60,
    "look_every": 20,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """The rewind steps, and the resolution of the line."""

    rewinds: tuple = option(
        ("0", "50", "100", "200", "500"), "rewind steps, at which the two trainings part"
    )
    points: int = option(11, "nets evaluated on the line, both ends included", least=3, most=10**4)


GROUPS = (
    Question(),
    ImpSettings(levels=4, prune_rate=0.6, output_rate=0.3),
    NetSettings(model="lenet300_100"),
    SHORT,
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains to the rewind steps, prunes and trains in pairs, draws."""
    place, *parts = read_all((RunSettings(), *GROUPS), SMOKE if flags.FLAGS.smoke else {})
    question, settings, *_ = parts
    axis, problem = set_up(place, parts)
    try:
        rewinds = _check(question, settings, problem)
        plan = imp_plan(problem, settings, {"shuffled": 1}, orders=2)
    except ValueError as error:
        raise UserError(str(error)) from error
    session = start_run("linear_connectivity", place, parts, axis, problem)
    lines = [
        Lineage(one, problem.hyper, {"seed": one.number, "rewind": step}, step)
        for step in rewinds
        for one in session.seeds
    ]
    alphas = np.linspace(0, 1, question.points).astype(np.float32)

    def look(entries: Sequence[Entry], ends: Watched) -> list[dict[str, Any]]:
        found = interpolation_pairs.lines(session, entries, ends, alphas)
        level = entries[0].name["level"]
        rows.keep_metrics(
            session.folder, lambda row: row["phase"] != "line" or row["chunk"] < level
        )
        stamp = {"phase": "line", "chunk": level}
        points = [
            {**stamp, **name, "alpha": alpha, "train_error": train, "test_error": test}
            for name, errors in found
            for alpha, train, test in zip(alphas, *errors, strict=True)
        ]
        rows.append_metrics(session.folder, *points)
        barriers = {
            interpolation_pairs.pair(name): {
                f"{word}_barrier": round(float(interpolation.barrier(e)), 6)
                for word, e in zip(("train", "test"), errors, strict=True)
            }
            for name, errors in found
        }
        return [barriers[interpolation_pairs.pair(entry.name)] for entry in entries]

    def report(summary: list[dict[str, Any]]) -> None:
        rows.write_summary(session.folder, summary, *trained_masks.LEADING)

    rewound = rewound_nets(session, rewinds)
    last = session._replace(later=0.0)
    descend(last, plan, lines, after=report, rewound=rewound, look=look)
    figure.draw_barriers(session.folder)
    figure.draw_lines(session.folder)
    print(table(rows.read_summary(session.folder)))
    finish_run(session.folder)


def _check(question: Question, settings: ImpSettings, problem: Problem) -> list[int]:
    """The rewind steps; raises ValueError if a setting is invalid."""
    if settings.rewind != "weights":
        raise ValueError(f"rewind={settings.rewind}: must be weights, where trainings part")
    every = problem.recipe.every
    epoch = problem.epoch_steps
    steps = {
        imp.rewind_step(text, problem.steps, epoch, every) for text in map(str, question.rewinds)
    }
    chunk_plan(problem, sorted(steps), problem.steps)
    return sorted(steps)


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(RunSettings(), *GROUPS)
    run_main(main)
