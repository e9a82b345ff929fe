"""Can a net classify by its connections alone, with one and the same weight for all of them?

Graphs of nodes with ten activations are evolved for the reward that they have over six shared
weights, with as few connections as possible. The champion is measured with random shared weights,
with the best one, as an ensemble over weights, and with trained weights.

    python -m experiments.weight_agnostic
    python -m experiments.weight_agnostic --preset=digits
    python -m experiments.weight_agnostic --generations=2000 --population=480

A generation is one program over all graphs. The results are in
experiments/weight_agnostic/README.md, with device and time.
"""

import dataclasses

from absl import flags

from experiments.harness import records, rows, setup
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    preset_of,
    read_all,
    with_preset,
)
from experiments.harness.main import run_main
from experiments.harness.session import finish_run
from experiments.weight_agnostic import champion, figure, images, page, search_run
from experiments.weight_agnostic.search_run import SearchSession
from experiments.weight_agnostic.settings import (
    DEFAULT,
    PRESETS,
    ChampionSettings,
    EvolutionSettings,
    ImageSettings,
)
from jaxtickets import runs
from jaxtickets.search.graphs.genome import Sizes

GROUPS = (
    RunSettings(),
    ImageSettings(),
    EvolutionSettings(),
    ChampionSettings(),
    dataclasses.replace(BatchSettings(), width=16),
)
LEADING = ("seed", "population", "generations", "images", "random_accuracy", "tuned_accuracy")


def main() -> None:
    """Reads and checks the flags, evolves, measures the champions, draws."""
    place, *parts = read_all(GROUPS, preset_of(PRESETS))
    shown, settings, training, batch = parts
    images.side_of(shown)
    setup.start(place, batch.precision)
    axis = runs.axis(batch.mode, batch.width)
    data = images.load(shown, place)
    sizes = Sizes(data.side**2, data.classes)
    search_run.check(settings, sizes, len(data.train.labels))
    run = records.open_run_of_flags("weight_agnostic", place, parts, axis)
    session = SearchSession(run.folder, axis, place.checkpoint_seconds, data, sizes)

    rows.keep_metrics(run.folder, lambda row: row["phase"] != "shared_weights")
    measured = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        population = search_run.evolve(session, settings, seed)
        graph = champion.choose(session, settings, population)
        measured.append(champion.measure(session, settings, training, seed, graph))
        rows.append_metrics(run.folder, measured[-1].curve)
        rows.write_summary(run.folder, [one.summary for one in measured], *LEADING)

    figure.draw_overview(run.folder, measured[0].graph, sizes)
    print(page.table([one.summary for one in measured]))
    finish_run(run.folder)


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
