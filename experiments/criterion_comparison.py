"""What is a weight worth? Criteria side by side, at the same densities on the same nets.

Every criterion's mask is trained from the initialisation, all of them in one batch, beside the
same mask shuffled within its layers, its criterion inverted, and the mask on a new initialisation:
a criterion that knows which weights matter beats all three (Frankle et al., "Pruning neural
networks at initialization: why are we missing the mark?", 2021).

    python -m experiments.criterion_comparison
    python -m experiments.criterion_comparison --preset=thesis --data_dir=FOLDER

The README has the numbers to expect, with spread, device and time.
"""

import dataclasses
from typing import Any

import jax
from absl import flags

from jaxtickets import runs
from jaxtickets.drivers import comparison, gallery
from jaxtickets.drivers.comparison import Entry, train_in_parts
from jaxtickets.drivers.dense import StoreSettings, dense_nets
from jaxtickets.drivers.gallery import GallerySettings
from jaxtickets.drivers.problem import NetSettings, Problem, TrainSettings, build, on_device
from jaxtickets.drivers.seeds import seed
from jaxtickets.figures import methods
from jaxtickets.io import records, rows, setup
from jaxtickets.io.errors import choose, run_main
from jaxtickets.io.flags import BatchSettings, RunSettings, define, read_all
from jaxtickets.protocols.treatments import TREATMENTS, Given, treat
from jaxtickets.settings import option

CHECKS = ("shuffled", "reinit", "inverted")
SMOKE: dict[str, Any] = {
    "seeds": 2,
    "density": (0.2, 0.05),
    "criteria": ("random", "magnitude", "snip", "synflow"),
    "checks": CHECKS,
    "synflow_rounds": 5,
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
    """What criteria are held against, beside each other."""

    train: bool = option(True, "train the masks; --notrain looks at them untrained alone")
    checks: tuple = option((), f"sanity checks of every criterion: {', '.join(CHECKS)}")


GROUPS = (
    RunSettings(),
    StoreSettings(),
    Question(),
    GallerySettings(),
    NetSettings(model="lenet300_100"),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads the flags, checks them, trains the dense nets, prunes, trains, draws."""
    place, store, *parts = _read()
    question, chosen, net, train, batch = parts
    setup.configure(place.devices or None)
    axis = runs.axis(batch.mode, batch.width)
    problem = build(net, train, place.data_dir, place.prepare)
    plan = gallery.plan(chosen, problem)
    if question.train:
        gallery.check_starts(plan, problem)
    spec = question, plan.settings, net, train, batch
    run = records.begin("criterion_comparison", place, spec, axis)

    data, every = on_device(problem.dataset), place.checkpoint_seconds
    seeds = [seed(problem, net.seed + i) for i in range(net.seeds)]
    dense = None
    if question.train or gallery.looks_at_trained(chosen):
        dense = dense_nets(run.folder, problem, axis, seeds, train, data, every, store)
    entries = gallery.entries_of(plan, problem, seeds, dense, data)
    entered = {entry.name["method"] for entry in entries}
    if "inverted" in question.checks:
        plain = [name for name in chosen.criteria if not name.startswith(("inverted_", "random"))]
        names = tuple(f"inverted_{name}" for name in plain if f"inverted_{name}" not in entered)
        others = plan._replace(settings=dataclasses.replace(chosen, criteria=names), saved=[])
        entries += gallery.entries_of(others, problem, seeds, dense, data)
    for check in question.checks:
        if check != "inverted":
            entries += [_treated(problem, entry, check) for entry in entries if _plain(entry)]
    summary = dense.summary if dense else []
    if question.train:
        batched = run.folder, "train", problem, axis, entries, data, every
        summary += train_in_parts(*batched)
    else:
        summary += comparison.untrained_rows(problem, axis, entries, data)

    rows.write_summary(run.folder, summary, *comparison.LEADING)
    methods.draw_against_density(run.folder)
    methods.draw_layers(run.folder)
    methods.draw_lost(run.folder)
    print(comparison.table(summary))
    records.finish_run(run)
    print(f"run: {run.folder}")


def _plain(entry: Entry) -> bool:
    """Whether an entry is a criterion's own, neither its inverse nor a check of it."""
    return not entry.name["method"].startswith("inverted_") and " " not in entry.name["method"]


def _treated(problem: Problem, entry: Entry, check: str) -> Entry:
    """The entry's mask, shuffled within layers or on a new initialisation."""
    start, said = entry.start, entry.name
    given = Given(problem.recipe.model, problem.prunable, start.params, start.stats, start.mask)
    one = seed(problem, said["seed"])
    key = gallery.control_key(one, said["method"], said["density"])
    key = jax.random.fold_in(key, 1 + CHECKS.index(check))
    params, stats, mask = treat(TREATMENTS[check], key, given)
    name = entry.name | {"method": f"{entry.name['method']} {check}"}
    return Entry(name, start._replace(params=params, stats=stats, mask=mask))


def _read() -> list[Any]:
    """The settings of all groups; explicit flags before the preset before the defaults."""
    name = "smoke" if flags.FLAGS.smoke else flags.FLAGS.preset
    choose("preset", name, tuple(PRESETS))
    found = read_all(GROUPS, PRESETS[name])
    for check in found[2].checks:
        choose("check", check, CHECKS)
    return found


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "settings by name: thesis, smoke; explicit flags come first")
    flags.DEFINE_bool("smoke", False, "seconds long: the preset of that name")
    define(*GROUPS)
    run_main(main)
