"""Do different methods, and different seeds, find the same weights?

Masks come from criteria, from annealing at the initialisation or later in training, and from saved
tickets. All pairs of masks of a density are compared by cosine, Jaccard and Hamming, over the whole
net and layer by layer. Beside them stands the cosine that random masks with the same layer counts
have by chance.

    python -m experiments.mask_similarity
    python -m experiments.mask_similarity --tickets=annealed=runs/sa_search/*/tickets/*

The results are in experiments/mask_similarity/README.md, with n, spread, device and time.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.harness import annealed_settings, annealing_runs, candidate_masks, rows
from experiments.harness.dense_store import StoreSettings
from experiments.harness.flags import RunSettings, define, numbers, read_all, whole_numbers
from experiments.harness.main import run_main
from experiments.harness.problem import Problem
from experiments.harness.seeds import weighted
from experiments.harness.session import Session, finish_run, set_up
from experiments.harness.settings import MOST_STEPS, option
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import start_of
from experiments.mask_similarity import figure
from experiments.mask_similarity.page import table
from jaxtickets import runs
from jaxtickets.analysis import similarity
from jaxtickets.io.errors import UserError

SMOKE: dict[str, Any] = {
    "widths": "100,50",
    "train_images": 1000,
    "batch_size": 40,
    "seeds": 2,
    "density": (0.2, 0.1),
    "criteria": ("random", "magnitude", "snip"),
    "anneal_at": ("0", "5"),
    "anneal_steps": 40,
    "epochs": 1,
}
LEADING = ("density", "layer", "method_a", "seed_a", "method_b", "seed_b", *similarity.MEASURES)


@dataclasses.dataclass(frozen=True)
class Question:
    """The annealed masks. Each field is also a flag of the same name."""

    anneal_at: tuple = option(("0", "75"), "training steps after which masks are annealed, or none")
    anneal_steps: int = option(500, "annealing steps, a multiple of 20", least=20, most=MOST_STEPS)


GROUPS = (RunSettings(), StoreSettings(), Question(), *candidate_masks.GROUPS)


def main() -> None:
    """Reads and checks the flags, makes the masks, compares all pairs of a density, draws."""
    place, store, *parts = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    axis, problem = set_up(place, parts)
    question, settings, net, *_ = parts
    steps = _steps(question)
    densities = numbers("density", settings.density)
    searched = annealed_settings.AnnealingSettings(steps=question.anneal_steps)
    checked = (
        annealing_runs.check_annealing(searched, problem, net.seed, densities, axis)
        if steps
        else None
    )
    made = candidate_masks.start_candidates(
        "mask_similarity", place, store, parts, axis, problem, trained=False
    )
    groups: dict[float, list[Entry]] = {}
    found = _annealed(made.session, checked, steps) if checked else []
    for entry in [*made.entries, *found]:
        groups.setdefault(entry.name["density"], []).append(entry)
    pairs = [row for density in groups for row in _pairs(problem, density, groups[density])]

    rows.write_summary(made.session.folder, pairs, *LEADING)
    figure.draw_similarity(made.session.folder)
    print(table(pairs))
    finish_run(made.session.folder)


def _steps(question: Question) -> tuple[int, ...]:
    if question.anneal_at == ("none",):
        return ()
    steps = whole_numbers("anneal_at", question.anneal_at)
    if min(steps) < 0:
        raise UserError(f"--anneal_at={','.join(question.anneal_at)}: must be 0 or more")
    return steps


def _annealed(
    session: Session, checked: annealing_runs.CheckedAnnealing, steps: tuple[int, ...]
) -> list[Entry]:
    """The annealed masks of each density and seed, on the weights after each number of steps."""
    problem, entries = session.problem, []
    for step in steps:
        kind = "trained" if step else "init"
        seeds = [weighted(problem, one, kind, step, session.data) for one in session.seeds]
        # each search's name gives it its own first masks, so that similarity comes from the search
        begun = session._replace(seeds=seeds)
        for one in annealing_runs.run_annealing(begun, f"anneal-{step}", checked, chains=1):
            mask = checked.where.space.mask(one.ticket)
            said = {
                "method": f"annealed_at_{step}",
                "density": one.density,
                "seed": one.seed.number,
            }
            entries.append(Entry(said, start_of(problem, one.seed, mask)))
    return entries


def _pairs(problem: Problem, density: float, entries: list[Entry]) -> list[dict[str, Any]]:
    """A row for each unordered pair of masks (and each mask with itself), and for each layer."""
    stacked = runs.stack([entry.start.mask for entry in entries])
    seen = similarity.overlaps(stacked, problem.prunable)
    parts = {"all": seen, **{path: similarity.layer(seen, path) for path in problem.prunable}}
    made = []
    for layer, part in parts.items():
        values = {name: measure(part) for name, measure in similarity.MEASURES.items()}
        for a, one in enumerate(entries):
            for b in range(a, len(entries)):
                other = entries[b]
                made.append(
                    {
                        "density": density,
                        "layer": layer.removesuffix("/kernel"),
                        "method_a": one.name["method"],
                        "seed_a": one.name["seed"],
                        "method_b": other.name["method"],
                        "seed_b": other.name["seed"],
                        **{name: round(float(v[a, b]), 6) for name, v in values.items()},
                    }
                )
    return made


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
