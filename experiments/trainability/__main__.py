"""How fast do masks train in their first steps?

Every candidate mask is trained for a few hundred steps from the initialisation, all in one batch.
The table shows how many steps each mask takes to reach given training losses.

    python -m experiments.trainability
    python -m experiments.trainability --tickets=annealed=runs/sa_search/*/tickets/*

The results are in experiments/trainability/README.md, with n, spread, device and time.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments.harness import candidate_masks, rows, trained_masks
from experiments.harness.dense_store import StoreSettings, dense_entry
from experiments.harness.flags import RunSettings, define, numbers, read_all
from experiments.harness.main import run_main
from experiments.harness.problem import build
from experiments.harness.session import finish_run, set_up
from experiments.harness.settings import MOST_STEPS, option
from experiments.harness.trained_masks import train_entries
from experiments.trainability import figure
from experiments.trainability.page import table
from jaxtickets.analysis.trainability import steps_to_reach
from jaxtickets.io.errors import UserError

SMOKE: dict[str, Any] = {
    "widths": "100,50",
    "train_images": 1000,
    "batch_size": 40,
    "seeds": 2,
    "criteria": ("random", "magnitude"),
    "epochs": 1,
    "first_steps": 40,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """The first steps of training. Each field is also a flag of the same name."""

    first_steps: int = option(
        500, "training steps of every mask, at a constant learning rate", least=1, most=MOST_STEPS
    )
    first_batch: int = option(100, "examples per training step", least=1, most=10**9)
    mean_of: int = option(
        10,
        "number of steps over which training losses are averaged",
        least=1,
        most=MOST_STEPS,
    )
    targets: tuple = option((1.0, 0.5, 0.3), "training losses to reach, in nats", least=0, most=1e9)


GROUPS = (RunSettings(), StoreSettings(), Question(), *candidate_masks.GROUPS)


def main() -> None:
    """Reads and checks the flags, makes the masks, trains their first steps, draws."""
    place, store, *parts = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    question, _, net, train, batch = parts
    targets = numbers("targets", question.targets)
    axis, problem = set_up(place, parts)
    if question.first_steps % question.mean_of:
        raise UserError(
            f"--first_steps={question.first_steps}: must be a multiple of "
            f"--mean_of={question.mean_of}"
        )
    examples = len(problem.dataset.train.labels)
    if question.first_batch > examples:
        raise UserError(
            f"--first_batch={question.first_batch}: there are only {examples} training images"
        )
    first = dataclasses.replace(
        train,
        learning_rates="constant",
        batch_size=question.first_batch,
        iterations=question.first_steps,
        look_every=question.mean_of,
        test_every=0,
    )
    short = build(net, first, place.data_dir, place.prepare, batch.precision)
    made = candidate_masks.start_candidates(
        "trainability", place, store, parts, axis, problem, trained=False
    )
    entries = [*made.entries, *(dense_entry(problem, one) for one in made.session.seeds)]
    entries = [entry._replace(start=entry.start._replace(step=0)) for entry in entries]
    first_steps = made.session._replace(problem=short)
    summary = train_entries(first_steps, "first", entries)[1]
    found = rows.read_metrics(made.session.folder)
    for row in summary:
        mine = [r for r in found if r["phase"] == "first" and _same(r, row)]
        losses = [r["train_loss"] for r in mine]
        reached = steps_to_reach([r["step"] for r in mine], losses, targets)
        row.update({f"steps_to/{t:g}": s for t, s in zip(targets, reached, strict=True)})

    rows.write_summary(made.session.folder, summary, *trained_masks.LEADING)
    figure.draw_first_steps(made.session.folder)
    print(table(summary))
    finish_run(made.session.folder)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a[name] == b[name] for name in ("method", "density", "seed"))


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
