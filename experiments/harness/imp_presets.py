"""Presets of iterative pruning: the lottery ticket paper (2019), OpenLTH's LeNet, and `smoke`.

`smoke` takes seconds. `SHORT` is a shorter version of the paper's training.
"""

from typing import Any

from experiments.harness.settings import choose
from experiments.harness.training_settings import TrainSettings
from jaxtickets.io.errors import UserError

SHORT = TrainSettings(
    learning_rate=1.2e-3,
    learning_rates="constant",
    batch_size=60,
    iterations=1000,
    look_every=50,
)
"""A shorter version of the paper's training of lenet300_100: the default of iterative pruning."""
SMOKE: dict[str, Any] = {
    "widths": "30,20",
    "seeds": 2,
    "levels": 2,
    "reinits": 2,
    "controls_every": 2,
    "control_levels": (1,),
    "rewind_step": "60",
    "iterations": 180,
    "look_every": 60,
    "test_every": 60,
}
LTH: dict[str, Any] = {
    "initializer": "glorot_normal",
    "optimizer": "adam",
    "learning_rates": "constant",
    "batch_size": 60,
    "look_every": 100,
    "test_every": 500,
    "scope": "layer",
    "output_rate": 0.1,
    "seeds": 5,
    "reinits": 3,
    "prune_rate": 0.2,
}
LTH_NETS: dict[str, dict[str, Any]] = {
    "lenet300_100": {
        "dataset": "mnist",
        "learning_rate": 1.2e-3,
        "iterations": 50_000,
        "levels": 19,
    },
    "conv2": {
        "dataset": "cifar10",
        "learning_rate": 2e-4,
        "iterations": 20_000,
        "conv_rate": 0.1,
        "levels": 15,
    },
    "conv4": {
        "dataset": "cifar10",
        "learning_rate": 3e-4,
        "iterations": 25_000,
        "conv_rate": 0.1,
        "levels": 15,
    },
    "conv6": {
        "dataset": "cifar10",
        "learning_rate": 3e-4,
        "iterations": 30_000,
        "conv_rate": 0.15,
        "levels": 15,
    },
}
OPENLTH_NETS: dict[str, dict[str, Any]] = {
    "lenet300_100": {
        "dataset": "mnist",
        "initializer": "kaiming_normal",
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "learning_rates": "constant",
        "batch_size": 128,
        "epochs": 40,
        "scope": "global",
        "prune_output": False,
        "prune_rate": 0.2,
        "levels": 19,
        "reinits": 1,
    },
}
PRESETS = {
    "lth": {model: LTH | own for model, own in LTH_NETS.items()},
    "openlth": OPENLTH_NETS,
}


def preset(name: str, model: str, dataset: str) -> dict[str, Any]:
    """The flags that a preset sets: name -> value.

    Args:
      name: the preset's name; empty: no preset.
      model: the net.
      dataset: the data set asked for; empty: the preset's.

    Raises:
      UserError: the preset is unknown, or isn't defined for the net or the data set.
    """
    choose("preset", name, ("", "smoke", *PRESETS))
    if name in ("", "smoke"):
        return SMOKE if name else {}
    nets = PRESETS[name]
    if model not in nets:
        raise UserError(f"--preset={name} is for {', '.join(nets)}, not {model}")
    colour = "cifar10"
    if dataset and (dataset == colour) != (nets[model]["dataset"] == colour):
        wanted = nets[model]["dataset"]
        raise UserError(f"--preset={name} of {model} is for {wanted}, not {dataset}")
    return nets[model]
