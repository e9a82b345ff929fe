"""How many random weights hold a trained net, found by subset sums and without training them?

A random net of twice the depth holds a subnet that computes what a trained net does: each weight is
a sum of random products, of which a mask keeps some. Three constructions say which: the closest
product alone (Malach et al., 2020), a greedy sum (Orseau et al., 2020), and the best of all subset
sums (Pensia et al., 2020), found by meeting in the middle. The error of a weight is measured
against the number of its random coefficients; then whole nets are rebuilt, every weight of them is
compared with the trained one, and they classify the test images.

    python -m experiments.strong_tickets
    python -m experiments.strong_tickets --preset=mnist --data_dir=FOLDER
    python -m experiments.strong_tickets --constructions=pensia --coefficients= --epsilon=0.01

The mask may look at the trained weights and at nothing else: no image, no label. The results are in
experiments/strong_tickets/README.md, with n, spread, device and time.
"""

from typing import Any

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
)
from experiments.harness.main import run_main
from experiments.harness.session import finish_run, set_up, start_run
from experiments.harness.settings import Idle
from experiments.harness.training_settings import IDLE, NetSettings, TrainSettings
from experiments.strong_tickets import figure, rebuilding
from experiments.strong_tickets.page import table
from experiments.strong_tickets.settings import StrongSettings, curve_sizes, rebuilt_sizes
from jaxtickets import masks, runs
from jaxtickets.io.errors import UserError
from jaxtickets.recipes import strong_tickets

SMOKE: dict[str, Any] = {
    "widths": "20,10",
    "coefficients": (2, 5),
    "curve": (2, 5),
    "sample": 200,
    "seeds": 2,
    "epochs": 2,
}
MNIST: dict[str, Any] = {"dataset": "mnist", "epochs": 10}
PRESETS = {"": {}, "smoke": SMOKE, "mnist": MNIST}
GROUPS = (
    RunSettings(),
    StoreSettings(),
    StrongSettings(),
    NetSettings(model="lenet300_100", use_bias=False),
    TrainSettings(epochs=20),
    BatchSettings(),
)
WITHOUT_EFFECT: Idle = {
    **IDLE,
    "sample": ({"curve": ((),)},),
}


def main() -> None:
    """Reads and checks the flags, trains dense nets, measures errors, rebuilds nets, draws."""
    place, store, *parts = read_all(GROUPS, preset_of(PRESETS))
    settings, _, train, _ = parts
    refuse_idle(WITHOUT_EFFECT, parts)
    axis, problem = set_up(place, parts)
    try:
        strong_tickets.layers(problem.net, problem.image_shape)
    except ValueError as error:
        raise UserError(f"--model: {error}") from error
    weights = masks.size(problem.param_shapes, masks.prunable(problem.param_shapes))
    sizes, curve = rebuilt_sizes(settings, weights), curve_sizes(settings)
    rebuilding.check_memory(problem, sizes)
    session = start_run("strong_tickets", place, parts, axis, problem)
    dense = dense_nets(session, train, store)

    errors = rebuilding.error_rows(session, curve, dense, settings.sample)
    rows.write_csv(session.folder / "errors.csv", errors)
    summary = rebuilding.rebuilt_rows(session, sizes, dense, settings.epsilon)
    rows.write_summary(session.folder, summary, *rebuilding.LEADING)
    leaves = rebuilding.kernels(problem, runs.take(dense.params, 0))
    figure.draw_errors(session.folder, np.concatenate([np.ravel(leaf) for leaf in leaves])[::50])
    print(table(summary))
    finish_run(session.folder)


if __name__ == "__main__":
    flags.DEFINE_string("preset", "", "preset: mnist or smoke; explicit flags override it")
    flags.DEFINE_bool("smoke", False, "a test that takes seconds: --preset=smoke")
    define(*GROUPS)
    run_main(main)
