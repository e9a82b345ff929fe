"""Which method prunes filters best, and is the small net better than one trained from scratch?

Criteria score the units of trained dense nets. The lowest units are removed until a share of the
units or of the multiply-adds is left. The small net is rewound and trained, fine-tuned, or trained
from scratch for as many epochs (scratch_e) or as much computation (scratch_b) as the dense net.
Size and latency are measured before and after. Methods named soft_ zero filters after each epoch of
a training of their own. Liu et al., "Rethinking the value of network pruning", 2019.

    python -m experiments.structured_pruning
    python -m experiments.structured_pruning --methods=l2,soft_l2,fpgm,soft_fpgm
    python -m experiments.structured_pruning --model=resnet20 --dataset=cifar10 --budget=0.5,0.25

The results are in experiments/structured_pruning/README.md, with n, spread, device and time.
"""

from typing import Any

from absl import flags

from experiments.harness import (
    filter_cuts,
    soft_filter_pruning,
    structured_runs,
)
from experiments.harness import structured_figures as figures
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.filter_cuts import AfterSettings, CutSettings
from experiments.harness.flags import BatchSettings, RunSettings, define, read_all
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.structured_pruning.page import table
from jaxtickets.io.errors import UserError

SMOKE: dict[str, Any] = {
    "model": "lenet5_29k",
    "widths": "4,6,20",
    "train_images": 1000,
    "seeds": 2,
    "methods": ("random", "l1", "soft_fpgm"),
    "rates": (0.5,),
    "after": ("scratch_e", "finetune"),
    "finetune_epochs": 1,
    "repeats": 10,
    "epochs": 1,
}
GROUPS = (
    RunSettings(),
    StoreSettings(),
    CutSettings(),
    AfterSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains dense nets, cuts, trains and measures them, draws."""
    place, store, *parts = read_all(GROUPS, SMOKE if flags.FLAGS.smoke else {})
    cut, after, _, train, _ = parts
    if cut.budget and flags.FLAGS["rates"].present:
        raise UserError("--rates and --budget: give one of them")
    axis, problem = set_up(place, parts, photographs=True)
    plan = filter_cuts.plan_cuts(cut, after, train, problem)
    session = start_run("structured_pruning", place, parts, axis, problem)
    dense = dense_nets(session, train, store)

    choices = filter_cuts.scored(session, plan, dense)
    choices += soft_filter_pruning.choices(session, plan)
    groups = filter_cuts.cut(plan, problem, choices)
    summary = structured_runs.train_nets(session, plan, groups, dense)
    figures.draw_widths(session.folder)
    figures.draw_accuracies(session.folder)
    print(table(summary))
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
