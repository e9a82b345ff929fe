"""How early in a dense training can a ticket be drawn?

At the end of each epoch the current mask is compared with the masks of the four epochs before. The
ticket is drawn when the mask is within a distance of 0.1 of all of them; then the net is pruned and
trained further. It is compared with tickets drawn at other epochs and at the end, with the last
mask on the same weights, and with a random mask of the same layer counts. You et al., "Drawing
early-bird tickets", 2020.

    python -m experiments.early_bird
    python -m experiments.early_bird --criterion=annealed
    python -m experiments.early_bird --granularity=units --model=lenet5 --density=0.5
    python -m experiments.early_bird --preset=vgg16 --data_dir=FOLDER

With --criterion=annealed, each mask is found by annealing with `--anneal_steps` swaps. All epochs
start from the same random mask and use the same random draws, so masks differ only because the
weights do. This isn't cheaper than training: with the defaults a mask costs one and a half dense
trainings.

"untrained" means right after the cut. The dense net is the one from which tickets are drawn. If
units are pruned, it is trained with the penalty on batch-norm scales.

The results are in experiments/early_bird/README.md, with n, spread, device and time.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.early_bird import drawing, drawn_tickets
from experiments.early_bird import figure as figures
from experiments.early_bird.draw_plan import DrawPlan, DrawSettings, plan_draws
from experiments.early_bird.page import table
from experiments.harness import rows, trained_masks
from experiments.harness.flags import BatchSettings, RunSettings, define, preset_of, read_all
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.training_settings import NetSettings, TrainSettings

SMOKE: dict[str, Any] = {
    "seeds": 2,
    "density": (0.3,),
    "draw_at": (2,),
    "epochs": 6,
}
VGG16: dict[str, Any] = {
    "model": "vgg16",
    "dataset": "cifar10",
    "granularity": "units",
    "density": (0.7, 0.5, 0.3),
    "after": "retrain",
    "draw_at": (10, 20, 40, 80),
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "learning_rates": "steps",
    "weight_decay": 1e-4,
    "batch_size": 256,
    "epochs": 160,
    "augmented": True,
}
PRESETS = {"": {}, "smoke": SMOKE, "vgg16": VGG16}
GROUPS = (
    RunSettings(),
    DrawSettings(),
    NetSettings(model="lenet300_100"),
    TrainSettings(optimizer="momentum", learning_rate=0.1, epochs=20),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains, draws tickets, prunes, trains them, draws figures."""
    place, settings, *parts = read_all(GROUPS, preset_of(PRESETS))
    axis, problem = set_up(place, parts, photographs=True)
    plan = plan_draws(settings, problem)
    spec = [plan.settings, *parts]
    session = start_run("early_bird", place, spec, axis, problem)
    seeds = session.seeds
    ends = drawing.train_and_draw(session, plan)
    drawn = drawing.write_drawn(session.folder, plan, seeds, ends)
    summary = drawing.dense_rows(session, plan, ends)
    for i, (small, entries) in enumerate(drawn_tickets.tickets(plan, problem, seeds, ends)):
        for entry in entries:
            trained_masks.save_entry(session.folder, small, entry, _step(entry, plan))
        smaller = session._replace(problem=small)
        summary += trained_masks.train_in_parts(smaller, f"train-{i:02d}", entries)

    rows.write_summary(session.folder, _ordered(_with_savings(summary)), *trained_masks.LEADING)
    figures.draw_distances(session.folder)
    figures.draw_accuracy(session.folder)
    print(table(rows.read_summary(session.folder), drawn))
    finish_run(session.folder)


def _step(entry: trained_masks.Entry, plan: DrawPlan) -> int:
    """The training step at which an entry's weights were taken."""
    return int(entry.name["drawn_epoch"]) * plan.epoch


def _with_savings(summary: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `saved`: the fraction saved of dense training, pruning and retraining."""
    late = {_place(row): row["dense_trainings"] for row in summary if row["method"] == "late"}
    return [
        row | {"saved": round(1 - row["dense_trainings"] / late[_place(row)], 6)}
        if _place(row) in late
        else row
        for row in summary
    ]


def _ordered(summary: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows sorted by method, density and seed. Tickets of different nets are trained apart."""
    methods = ["dense", "early_bird", "random_layerwise", "late_mask"]
    fixed = {row["method"]: row["drawn_epoch"] for row in summary if row["method"] not in methods}
    methods += sorted(fixed, key=lambda method: fixed[method])

    def place(row: dict[str, Any]) -> tuple[int, float, int]:
        return methods.index(row["method"]), -row["density"], row["seed"]

    return sorted(summary, key=place)


def _place(row: dict[str, Any]) -> tuple[float, int]:
    return row["density"], row["seed"]


if __name__ == "__main__":
    words = "preset: vgg16 or smoke; explicit flags override it"
    flags.DEFINE_string("preset", "", words)
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
