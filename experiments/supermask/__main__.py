"""What matters in a ticket: its mask, the signs of its weights, or their values?

Nets are pruned iteratively by criteria that depend on the initial and the final value of a weight.
Kept weights restart at their initial value, a new one, a shuffled one, or a constant with the
initial sign. Pruned weights are zero, or frozen at their initial value. Tickets that classify
before any training are called supermasks. Zhou et al., "Deconstructing lottery tickets: zeros,
signs, and the supermask", 2019.

    python -m experiments.supermask
    python -m experiments.supermask --preset=zhou --data_dir=FOLDER

The results are in experiments/supermask/README.md, with n, spread, device and time.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
from absl import flags

from experiments.harness import rows
from experiments.harness.canvas import now_and_then
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.flags import BatchSettings, RunSettings, define, preset_of, read_all
from experiments.harness.imp_plan import ImpSettings, imp_plan
from experiments.harness.imp_presets import SHORT
from experiments.harness.levels import descend
from experiments.harness.lineages import Lineage
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import option
from experiments.harness.trained_masks import LEADING
from experiments.harness.training_settings import NetSettings
from experiments.supermask import figure
from experiments.supermask.page import table
from jaxtickets import runs
from jaxtickets.criteria import find, initial_final
from jaxtickets.io.errors import UserError
from jaxtickets.recipes.mask_actions import ONES, ZEROS

SMOKE: dict[str, Any] = {
    "widths": "30,20",
    "seeds": 2,
    "criteria": ("magnitude", "magnitude_same_sign"),
    "ones": ("rewind", "signed_constant"),
    "zeros": ("zero", "freeze_unless_toward_zero"),
    "levels": 2,
    "iterations": 60,
    "look_every": 30,
}
ZHOU: dict[str, Any] = {
    "criteria": (*initial_final.CRITERIA, "random"),
    "dataset": "mnist",
    "initializer": "glorot_normal",
    "levels": 24,
    "prune_rate": 0.2,
    "output_rate": 0.1,
    "iterations": 0,
    "epochs": 55,
    "look_every": 0,
    "seeds": 5,
}
CRITERIA = (
    *("magnitude", "magnitude_same_sign", "magnitude_increase", "movement"),
    *("large_init_large_final", "large_init", "small_final", "random"),
)
PRESETS = {"": {}, "smoke": SMOKE, "zhou": ZHOU}


@dataclasses.dataclass(frozen=True)
class Question:
    """The combinations, all of which are trained, and the pruning rates."""

    criteria: tuple = option(CRITERIA, "pruning criteria; --preset=zhou has all of the paper's")
    ones: tuple = option(("rewind", "signed_constant"), "actions on kept weights", tuple(ONES))
    zeros: tuple = option(("zero",), "actions on pruned weights", tuple(ZEROS))
    levels: int = option(7, "number of pruning levels", least=1, most=1000)
    prune_rate: float = option(
        0.4, "fraction of a layer's remaining weights that a level prunes", above=0, below=1
    )
    conv_rate: float = option(0.0, "--prune_rate of convolutions; 0: the same", least=0, below=1)
    output_rate: float = option(
        0.2, "--prune_rate of the output layer; 0: the same", least=0, below=1
    )


GROUPS = (
    RunSettings(),
    StoreSettings(),
    Question(),
    NetSettings(model="lenet300_100"),
    dataclasses.replace(SHORT, look_every=100),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains the dense nets, prunes all combinations, draws."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    question, _, train, _ = parts
    axis, problem = set_up(place, parts)
    settings = ImpSettings(
        levels=question.levels,
        prune_rate=question.prune_rate,
        conv_rate=question.conv_rate,
        output_rate=question.output_rate,
    )
    try:
        for criterion in question.criteria:
            find(criterion)
        plan = imp_plan(problem, settings, {})
    except ValueError as error:
        raise UserError(str(error)) from error
    session = start_run("supermask", place, parts, axis, problem)
    dense = dense_nets(session, train, store)
    combinations = itertools.product(question.criteria, question.ones, question.zeros)
    lines = [
        Lineage(
            one,
            problem.hyper,
            {"criterion": criterion, "ones": ones, "zeros": zeros, "seed": one.number},
            criterion=criterion,
            ones=ONES[ones],
            zeros=ZEROS[zeros],
        )
        for criterion, ones, zeros in combinations
        for one in session.seeds
    ]
    owners = np.arange(len(lines)) % len(session.seeds)
    trained = runs.take((dense.params, dense.stats), owners)
    draw_if_due = now_and_then(figure.draw_supermasks)

    def report(summary: list[dict[str, Any]]) -> None:
        named = [{**row, "method": row["criterion"]} for row in summary]
        rows.write_summary(session.folder, dense.summary + named, *LEADING)
        draw_if_due(session.folder)

    descend(session._replace(later=0.0), plan, lines, after=report, dense=trained)
    figure.draw_supermasks(session.folder)
    figure.draw_plane(session.folder)
    print(table(rows.read_summary(session.folder)))
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: zhou or smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
