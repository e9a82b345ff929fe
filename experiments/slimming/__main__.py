"""Does a penalty on batch-norm scales show which channels can be removed?

Network slimming works in passes. A pass trains with an L1 penalty on batch-norm scales, removes the
channels with the smallest scales over all layers, and fine-tunes the small net without the penalty.
The next pass continues with that net. The control does the same without a penalty. Liu et al.,
"Learning efficient convolutional networks through network slimming", 2017.

    python -m experiments.slimming
    python -m experiments.slimming --model=resnet20 --dataset=cifar10 --strengths=0,1e-4,1e-3

The default net is LeNet-5 with batch norm. The results are in experiments/slimming/README.md, with
n, spread, device and time.
"""

from typing import Any

from absl import flags

from experiments.harness import rows
from experiments.harness.dense_store import StoreSettings
from experiments.harness.flags import BatchSettings, RunSettings, define, read_all
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.training_settings import NetSettings, TrainSettings
from experiments.slimming import figure as figures
from experiments.slimming import page, slimming_runs
from experiments.slimming.slimming_runs import SlimSettings
from jaxtickets.io.errors import UserError

SMOKE: dict[str, Any] = {
    "widths": "4,6,20",
    "train_images": 1000,
    "seeds": 1,
    "strengths": (1e-3,),
    "finetune_epochs": 1,
    "repeats": 5,
    "epochs": 1,
}
GROUPS = (
    RunSettings(),
    StoreSettings(),
    SlimSettings(),
    NetSettings(),
    TrainSettings(optimizer="momentum", learning_rate=0.1, penalty="scales", epochs=10),
    BatchSettings(),
)


def main() -> None:
    """Reads and checks the flags, trains, cuts and fine-tunes pass by pass, draws."""
    place, store, *parts = _read()
    slim, _, train, _ = parts
    axis, problem = set_up(place, parts, photographs=True)
    plan = slimming_runs.plan_passes(slim, train, problem)
    session = start_run("slimming", place, parts, axis, problem)
    folder = session.folder
    summary = slimming_runs.train_passes(session, slim, plan, store)
    rows.write_summary(folder, summary, *slimming_runs.LEADING)
    figures.draw_accuracies(folder)
    figures.draw_scales(folder)
    print(page.table(summary))
    finish_run(session.folder)


def _read() -> list[Any]:
    """The settings of all groups. Without --model, the default net has batch norm."""
    preset = dict(SMOKE) if flags.FLAGS.smoke else {}
    if flags.FLAGS["model"].present:
        preset.pop("widths", None)
    else:
        preset["batch_norm"] = True
    found = read_all(GROUPS, preset)
    if found[4].penalty != "scales":
        said = "must be scales; --strengths=0 is without a penalty"
        raise UserError(f"--penalty={found[4].penalty}: {said}")
    if flags.FLAGS["penalty_strength"].present:
        raise UserError("--penalty_strength: give --strengths instead")
    return found


if __name__ == "__main__":
    flags.DEFINE_bool("smoke", False, "a test that takes seconds")
    define(*GROUPS)
    run_main(main)
