"""Which pruning criterion finds the best mask, on the same nets at the same densities?

The mask of every criterion is trained from the initialisation, all masks in one batch. Each mask
can be compared with three sanity checks: the mask shuffled within layers, the mask of the inverted
criterion, and the same mask on a new initialisation. A criterion that knows which weights matter
beats all three. Frankle et al., "Pruning neural networks at initialization: why are we missing the
mark?", 2021.

    python -m experiments.criterion_comparison
    python -m experiments.criterion_comparison --preset=thesis --data_dir=FOLDER

The results are in experiments/criterion_comparison/README.md, with n, spread, device and time.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.harness import (
    candidate_masks,
    method_figures,
    rows,
    tables,
    trained_masks,
)
from experiments.harness.dense_store import StoreSettings
from experiments.harness.flags import RunSettings, define, preset_of, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.session import finish_run, set_up
from experiments.harness.settings import option
from experiments.harness.trained_masks import Entry, before_trainings, train_in_parts
from jaxtickets.criteria import find
from jaxtickets.io.errors import UserError
from jaxtickets.keys import stream
from jaxtickets.recipes.ticket_controls import CONTROLS, ControlInputs, apply_control

CHECKS = ("shuffled", "reinit", "inverted")
SMOKE: dict[str, Any] = {
    "widths": "100,50",
    "train_images": 1000,
    "batch_size": 40,
    "seeds": 2,
    "density": (0.2, 0.05),
    "criteria": ("random", "magnitude", "snip", "synflow"),
    "checks": CHECKS,
    "rounds": 5,
    "epochs": 1,
}
THESIS: dict[str, Any] = {
    "dataset": "mnist",
    "use_bias": False,
    "initializer": "kaiming_uniform",
    "density": (0.3, 0.2, 0.1, 0.05, 0.02),
    "optimizer": "adadelta",
    "learning_rate": 1.0,
    "learning_rates": "constant",
    "batch_size": 64,
    "epochs": 50,
}
PRESETS = {"": {}, "smoke": SMOKE, "thesis": THESIS}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is done with the masks. Each field is also a flag of the same name."""

    train: bool = option(True, "train the masks; --notrain only evaluates them untrained")
    evaluate: bool = option(
        True, "evaluate the untrained masks; --noevaluate only counts the kept weights"
    )
    checks: tuple = option((), "sanity checks of every criterion", CHECKS)


GROUPS = (RunSettings(), StoreSettings(), Question(), *candidate_masks.GROUPS)


def main() -> None:
    """Reads and checks the flags, trains the dense nets, prunes, trains the masks, draws."""
    place, store, *parts = _read()
    question = parts[0]
    axis, problem = set_up(place, parts)
    trained = question.train
    made = candidate_masks.start_candidates(
        "criterion_comparison", place, store, parts, axis, problem, trained
    )
    entries = list(made.entries)
    if "inverted" in question.checks:
        entries += _inverted(made)
    for check in question.checks:
        if check != "inverted":
            entries += [_treated(problem, entry, check) for entry in made.entries]
    if question.train:
        found = train_in_parts(before_trainings(made.session, 0), "train", entries)
    elif not question.evaluate:
        found = trained_masks.counted_rows(problem, entries)
    else:
        found = trained_masks.untrained_rows(made.session, entries)
    summary = made.summary + found

    rows.write_summary(made.session.folder, summary, *trained_masks.CHECKED)
    if question.evaluate:
        method_figures.draw_against_density(made.session.folder)
    method_figures.draw_layers(made.session.folder)
    method_figures.draw_lost(made.session.folder)
    print(tables.methods(summary))
    finish_run(made.session.folder)


def _inverted(made: candidate_masks.Candidates) -> list[Entry]:
    """The masks of the inverted criteria. Random criteria have no inverse."""
    settings = made.plan.settings
    own = {f"inverted_{name}": name for name in settings.criteria if not find(name).draws}
    inverse = made.plan._replace(
        settings=dataclasses.replace(settings, criteria=tuple(own)), saved=[]
    )
    entries = candidate_masks.entries_of(made.session, inverse, made.dense)
    return [
        entry._replace(name=entry.name | {"method": own[entry.name["method"]], "check": "inverted"})
        for entry in entries
    ]


def _treated(problem: Problem, entry: Entry, check: str) -> Entry:
    """The entry of a check: the mask shuffled within layers, or on a new initialisation."""
    start, said = entry.start, entry.name
    given = ControlInputs(
        problem.recipe.model, problem.prunable, start.params, start.stats, start.mask
    )
    key = stream(said["seed"], "check", said["method"], said["density"], check)
    params, stats, mask = apply_control(CONTROLS[check], key, given)
    return Entry(said | {"check": check}, start._replace(params=params, stats=stats, mask=mask))


def _read() -> list[Any]:
    """The settings of all groups: from explicit flags, then the preset, then the defaults."""
    found = read_all(GROUPS, preset_of(PRESETS))
    if found[2].train and not found[2].evaluate:
        raise UserError("--noevaluate: only with --notrain, since it evaluates nothing")
    return found


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: thesis or smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
