"""Settings of the experiment on sign flips by name."""

from typing import Any

DEFAULT = "lenet5"
LENET: dict[str, Any] = {
    "model": "lenet5",
    "dataset": "mnist5k",
    "optimizer": "momentum",
    "weight_decay": 5e-4,
    "batch_size": 50,
    "epochs": 4,
    "look_every": 35,
}
"""The bundled digits. An epoch has 70 steps, in which the mask may change twice."""
CONV: dict[str, Any] = {
    **LENET,
    "model": "conv4",
    "dataset": "cifar10",
    "batch_size": 128,
    "epochs": 20,
    "look_every": 117,
    "augmented": True,
    "density": (0.05, 0.01),
}
"""An epoch has 351 steps, in which the mask may change three times."""
SMOKE: dict[str, Any] = {
    **LENET,
    "model": "lenet300_100",
    "dataset": "digits",
    "widths": "30,20",
    "seeds": 2,
    "rules": ("random", "hybrid2"),
    "rates": (0.03, 0.1),
    "density": (0.2, 0.05),
    "early": (0.2, 0.5),
    "epochs": 2,
    "train_images": 700,
    "look_every": 4,
    "cuts": 3,
}
PRESETS: dict[str, dict[str, Any]] = {DEFAULT: LENET, "conv4": CONV, "smoke": SMOKE}
