"""Presets of the annealing thesis (2020), for its net on MNIST and its net on CIFAR-10.

The MNIST net is `lenet300_100` without biases, and a bit is a weight. The CIFAR-10 net is `cnn960`,
and a bit is a filter. Deviations from the thesis: validation images are taken from the training
data; and the tabu memory rejects exact matches only, while the thesis rejected masks nearer than
the swap size (which differs from exact matches only if swaps are single).
"""

import dataclasses
from typing import Any

from experiments.harness import annealed_settings

THESIS: dict[str, Any] = {
    "scope": "global",
    "allocation": "global",
    "rescale": False,
    "floor": 0,
    "measure": "error_rate",
    "accept": "running_mean",
    "running_start": 0.95,
    "sizes": "sawtooth",
    "size": 0,
    "temperatures": "levels",
    "initializer": "kaiming_normal",
    "compare": (
        "ticket", "ticket_last", "snip", "magnitude", "random", "random_layerwise", "dense"
    ),
}  # fmt: skip
CNN960_TRAINING: dict[str, Any] = {
    "dataset": "cifar10",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "learning_rates": "steps",
    "drops": "0.3333,0.6667",
    "weight_decay": 1e-4,
    "batch_size": 256,
    "epochs": 90,
}
"""The data and the training of `cnn960`."""
THESIS_NETS: dict[str, dict[str, Any]] = {
    "lenet300_100": {
        "dataset": "mnist",
        "use_bias": False,
        "density": (0.2,),
        "steps": 42_700,
        "chunk": 427,
        "images": 2000,
        "temperature": 0.006,
        "cooling": 0.999,
        "level_first": 1.0,
        "level_growth": 1.005,
        "level_most": 50.0,
        "tabu": 50,
        "tries": 50,
        "optimizer": "adadelta",
        "learning_rate": 1.0,
        "learning_rates": "constant",
        "batch_size": 64,
        "epochs": 50,
    },
    "cnn960": {
        **CNN960_TRAINING,
        "granularity": "units",
        "density": (0.5,),
        "steps": 8200,
        "chunk": 82,
        "images": 1024,
        "temperature": 0.005,
        "cooling": 0.995,
        "level_first": 2.0,
        "level_growth": 1.005,
        "level_most": 10.0,
        "tabu": 60,
        "tries": 30,
    },
}


def thesis_search(model: str) -> dict[str, Any]:
    """The thesis' values of the fields of `annealed_settings.AnnealingSettings`."""
    known = {field.name for field in dataclasses.fields(annealed_settings.AnnealingSettings)}
    return {k: v for k, v in (THESIS | THESIS_NETS[model]).items() if k in known}
