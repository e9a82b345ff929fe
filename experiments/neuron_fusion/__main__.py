"""Can neurons be fused instead of removed?

Four questions about a trained net whose layers are made narrower. How many units are fused, which
of them (--which), how (--how), and is retraining needed (--retrain)? Sparsity before fusion is
--before_density. After fusion the net is smaller (`compress.shrink`). Kim et al., "Neuron merging:
compensating for pruned neurons", 2020.

    python -m experiments.neuron_fusion
    python -m experiments.neuron_fusion --preset=fashion
    python -m experiments.neuron_fusion --cosines=0.9,0.7 --which=cosine --how=merge,average

The results are in experiments/neuron_fusion/README.md, with n, spread, device and time.
"""

import numpy as np
from absl import flags

from experiments.harness import rows
from experiments.harness.dense_store import StoreSettings, dense_nets
from experiments.harness.flags import (
    BatchSettings,
    RunSettings,
    define,
    preset_of,
    read_all,
    refuse_idle,
    with_preset,
)
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import Except, Idle, Without
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from experiments.neuron_fusion import figure, fused_nets, page, retraining
from experiments.neuron_fusion.presets import DEFAULT, PRESETS
from experiments.neuron_fusion.settings import FuseSettings, RetrainSettings
from jaxtickets import masks
from jaxtickets.compress.fusion import fusible

GROUPS = (
    RunSettings(),
    StoreSettings(),
    FuseSettings(),
    RetrainSettings(),
    NetSettings(),
    TrainSettings(),
    BatchSettings(),
)
WITHOUT_EFFECT: Idle = {
    **IDLE,
    "cuts": ({"counts": Except(((),))}, {"cosines": Except(((),))}),
    "retrained": ({"retrain": Without(("finetune", "full"))},),
    "finetune_epochs": ({"retrain": Without(("finetune",)), "before_density": ((1.0,),)},),
    "finetune_rate": ({"retrain": Without(("finetune",)), "before_density": ((1.0,),)},),
}


def main() -> None:
    """Reads and checks the flags, trains dense nets, fuses, retrains, draws."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    settings, retrain, _, train, _ = parts
    refuse_idle(WITHOUT_EFFECT, parts)
    axis, problem = set_up(place, parts)
    plan = fused_nets.plan_fusion(settings, retrain, problem)
    session = start_run("neuron_fusion", place, parts, axis, problem)
    dense = dense_nets(session, train, store)

    found = fused_nets.sources(session, plan, train, dense)
    groups, partners = fused_nets.fuse_all(session, plan, found)
    summary = retraining.dense_rows(session, dense, groups[0].report)
    summary += retraining.retrain(session, plan, train, groups)
    rows.write_summary(session.folder, summary, *retraining.LEADING)

    first = fusible(plan.graph)[0].producers[0]
    (kernel,) = masks.kernels(found[0].ticket.params, (first,))
    figure.draw_accuracies(session.folder)
    figure.draw_fused(session.folder, np.asarray(kernel), problem.image_shape, partners)
    print(page.table(summary))
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string(
        "preset", DEFAULT, f"settings by name: {', '.join(PRESETS)}; explicit flags come first"
    )
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*(with_preset(group, PRESETS[DEFAULT]) for group in GROUPS))
    run_main(main)
