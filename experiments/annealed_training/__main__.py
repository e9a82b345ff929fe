"""Does heat help a search for masks whose weights train while it searches?

GraNet drops and grows weights while a net trains: an annealing at temperature zero. The variants
add heat to what is dropped and grown, accept moves by Metropolis' rule, or share the budget among
chains that help each other. Each variant's mask is rewound to the first weights and trained alone.
All have the same budget and the same seeds, so that differences are paired.

    python -m experiments.annealed_training
    python -m experiments.annealed_training --preset=mnist --data_dir=FOLDER
    python -m experiments.annealed_training --variants=granet --heat=0.1,0.3,1 --density=0.03

The results are in experiments/annealed_training/README.md, with n, spread, device and time.
"""

import dataclasses

from absl import flags

from experiments.annealed_training.figure import (
    draw_accuracies,
    draw_agreement,
    draw_chains,
    draw_heat,
)
from experiments.annealed_training.page import table
from experiments.annealed_training.presets import PRESETS
from experiments.annealed_training.variants import HEAT, chosen
from experiments.harness import (
    annealed_plan,
    annealed_trainings,
    budgeted_search,
    packed_runs,
    rows,
)
from experiments.harness.annealed_plan import HELD_OUT
from experiments.harness.annealed_variants import VARIANTS
from experiments.harness.budgeted_search import Task
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    numbers,
    preset_of,
    read_all,
    refuse_idle,
)
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import option
from experiments.harness.sparse_runs import GRANET, EvolveSettings
from experiments.harness.trained_masks import LEADING, Entry, save_entry, train_in_parts
from experiments.harness.training_runs import start_of
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings


@dataclasses.dataclass(frozen=True)
class Question:
    """The variants, their heats, densities and budget. Each field is also a flag."""

    variants: tuple = option(tuple(VARIANTS), "annealings", tuple(VARIANTS))
    heat: tuple = option(
        (), f"heats of further variants, {HEAT}_HEAT, each alone", empty=True, above=0, most=100
    )
    density: tuple = option((0.1, 0.03), "kept fractions of the weights", above=0, below=1)
    budget: float = option(
        1.0, "cost of a search for each seed, in dense trainings", above=0, most=1e9
    )
    held_out: int = option(
        HELD_OUT, "training images kept from training for energies", least=1, most=10**9
    )
    execution: str = packed_runs.execution("training steps of the masks that were found")
    floor: int = option(1, "minimum number of weights that a layer keeps", least=0, most=10**9)


GROUPS = (
    RunSettings(),
    Question(),
    EvolveSettings(),
    NetSettings(
        model="lenet300_100", use_bias=False, initializer="kaiming_normal", seeds=5, seed=100
    ),
    TrainSettings(optimizer="momentum", learning_rate=0.1, epochs=15),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, searches by each variant, trains the masks, reports."""
    place, *parts = read_all(GROUPS, preset_of(PRESETS))
    refuse_idle(IDLE, parts)
    question, evolving, _, train, _ = parts
    axis, problem = set_up(place, parts)
    variants = chosen(question.variants, numbers("heat", question.heat) if question.heat else [])
    densities = sorted(numbers("density", question.density), reverse=True)
    annealed_plan.check(
        problem, variants, question.budget, densities, question.floor, question.held_out
    )
    alone = packed_runs.executed(problem, question.execution)
    session = start_run("annealed_training", place, parts, axis, problem)

    entries = []
    for density in densities:
        for name, variant in variants.items():
            task = Task(session, f"{name}-{density:g}", density, question.floor)
            found = annealed_trainings.anneal(
                task, variant, evolving, train, question.budget, question.held_out
            )
            for one, (mask, params, said) in zip(session.seeds, found, strict=True):
                fields = {"method": name, "density": density, "seed": one.number, **said}
                entry = Entry(fields, start_of(problem, one, mask, params))
                save_entry(session.folder, problem, entry, one.step)
                entries.append(entry)
    summary = train_in_parts(session._replace(problem=alone, later=0.0), "train", entries)
    dense = budgeted_search.dense_cost(problem)
    for row in summary:
        row["dense_trainings"] = round(row["forward_passes"] / dense, 4)
    rows.write_summary(session.folder, summary, *LEADING)
    draw_accuracies(session.folder, GRANET)
    draw_heat(session.folder, GRANET)
    draw_chains(session.folder)
    draw_agreement(session.folder)
    print(table(summary))
    finish_run(session.folder)


if __name__ == "__main__":
    words = "preset: mnist, fashion or smoke; explicit flags override it"
    flags.DEFINE_string("preset", "", words)
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
