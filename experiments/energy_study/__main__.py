"""Which energy should a search minimise, so that low energies mean high trained accuracies?

Masks of many kinds, made by criteria and by random fields, are trained in full. Every energy that a
search could minimise is evaluated on each mask at the initialisation. The table shows each energy's
rank correlation with the trained net's validation accuracy, and its cost.

    python -m experiments.energy_study
    python -m experiments.energy_study --preset=mnist --data_dir=FOLDER

The results are in experiments/energy_study/README.md, with n, spread, device and time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.energy_study import energy_scores, random_masks
from experiments.energy_study import figure as figure
from experiments.energy_study.energy_scores import EnergySettings
from experiments.energy_study.page import table
from experiments.harness import candidate_masks, rows, trained_masks
from experiments.harness.candidate_masks import GallerySettings
from experiments.harness.dense_store import StoreSettings
from experiments.harness.flags import BatchSettings, RunSettings, define, preset_of, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.session import finish_run, set_up
from experiments.harness.trained_masks import Entry, train_in_parts
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import masks
from jaxtickets.keys import stream

SMOKE: dict[str, Any] = {
    "widths": "30,20",
    "train_images": 1000,
    "batch_size": 40,
    "seeds": 2,
    "density": (0.1,),
    "criteria": ("random", "snip"),
    "fields": 3,
    "epochs": 1,
    "train_steps": (3, 6),
    "held_out": 200,
}
MNIST: dict[str, Any] = {
    "dataset": "mnist",
    "train_steps": (10, 25, 50, 100, 200, 400),
    "held_out": 4000,
    "epochs": 10,
}
PRESETS = {"": {}, "smoke": SMOKE, "mnist": MNIST}
CRITERIA = ("random", "large_init", "snip", "grasp", "synflow", "fisher")
GROUPS = (
    RunSettings(),
    StoreSettings(),
    EnergySettings(),
    GallerySettings(criteria=CRITERIA, density=(0.1, 0.03), floor=1),
    NetSettings(model="lenet300_100", use_bias=False, initializer="kaiming_normal", seeds=2),
    TrainSettings(optimizer="momentum", learning_rate=0.1),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, makes, scores and trains the masks, correlates, draws."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    settings, _, _, train, _ = parts
    axis, problem = set_up(place, parts)
    steps = energy_scores.check_train_steps(settings, problem)
    made = candidate_masks.start_candidates(
        "energy_study", place, store, parts, axis, problem, trained=False
    )
    entries = [*made.entries, *_shuffled(problem, made)]
    entries += random_masks.of_fields(settings.fields, problem, made)

    look = energy_scores.evaluation_data(settings, problem, steps[-1], made.session.seeds[0].number)
    scored = energy_scores.criteria_of(problem, made)
    cost = energy_scores.costs(
        problem, train, steps, energy_scores.energy_inputs(entries[0], scored), look
    )
    energies = energy_scores.energies_of_masks(made.session, train, steps, entries, scored, look)
    summary = train_in_parts(made.session._replace(later=0.0), "train", entries)
    for row, of in zip(summary, energies, strict=True):
        row |= {f"energy/{name}": round(value, 6) for name, value in of.items()}
    rows.write_summary(made.session.folder, summary, *trained_masks.CHECKED)
    found = _correlations(summary, cost)
    rows.write_csv(made.session.folder / "correlations.csv", found)
    figure.draw_energies(made.session.folder, found)
    print(table(found))
    finish_run(made.session.folder)


def _shuffled(problem: Problem, made: candidate_masks.Candidates) -> list[Entry]:
    """Random masks with the layer counts of each criterion's mask."""
    entries = []
    for entry in made.entries:
        said = entry.name | {"check": "shuffled"}
        key = stream(said["seed"], "check", said["method"], said["density"], "shuffled")
        mask = masks.shuffle(key, entry.start.mask, problem.prunable)
        entries.append(Entry(said, entry.start._replace(mask=mask)))
    return entries


def _correlations(summary: Sequence[dict[str, Any]], cost: dict[str, int]) -> list[dict[str, Any]]:
    """For each energy and density: the mean of Spearman's rank correlations within each seed.

    It is positive if low energies go with high validation accuracies.
    """
    from scipy.stats import spearmanr

    groups: dict[float, dict[int, list[dict[str, Any]]]] = {}
    for row in summary:
        groups.setdefault(row["density"], {}).setdefault(row["seed"], []).append(row)
    made = []
    for name, price in cost.items():
        for density, seeds in groups.items():
            each = [
                spearmanr(
                    [-row[f"energy/{name}"] for row in mine],
                    [row["validation_accuracy"] for row in mine],
                ).statistic
                for mine in seeds.values()
            ]
            spread = round(float(np.std(each, ddof=1)), 4) if len(each) > 1 else None
            what = {"energy": name, "density": density, "cost": price, "seeds": len(each)}
            masks_of = {"masks": sum(map(len, seeds.values())) // len(each)}
            made.append(
                what | masks_of | {"correlation": round(float(np.mean(each)), 4), "spread": spread}
            )
    return made


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: mnist or smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
