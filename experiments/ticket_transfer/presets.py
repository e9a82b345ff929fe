"""Settings of ticket transfer by name."""

from typing import Any

DEFAULT = "mnist5k"
MNIST5K: dict[str, Any] = {
    "model": "lenet300_100",
    "prune_output": False,
    "batch_size": 60,
    "epochs": 10,
    "levels": 5,
    "prune_rate": 0.5,
}
"""The bundled digits and variants of them."""
MNIST: dict[str, Any] = {
    **MNIST5K,
    "datasets": ("mnist", "fashion_mnist"),
    "seeds": 5,
}
"""All digits and all clothing."""
CIFAR10: dict[str, Any] = {
    **MNIST5K,
    "model": "resnet20",
    "datasets": (
        *("cifar10", "cifar10:first_classes", "cifar10:second_classes"),
        *("cifar10:first_images", "cifar10:second_images"),
    ),
    "rates": (0.1, 0.001),
    "weight_decay": 1e-4,
    "augmented": True,
    "batch_size": 128,
    "epochs": 100,
    "rewind_step": "2ep",
    "prune_rate": 0.37,
    "scope": "global",
}
"""CIFAR-10 and its halves, for a GPU."""
SMOKE: dict[str, Any] = {
    **MNIST5K,
    "widths": "30,20",
    "datasets": ("mnist5k", "mnist5k:second_images"),
    "optimizers": ("adam",),
    "rates": (0.001,),
    "train_images": 500,
    "seeds": 2,
    "batch_size": 50,
    "epochs": 2,
    "levels": 1,
    "match_images": 100,
}
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: MNIST5K,
    "mnist": MNIST,
    "cifar10": CIFAR10,
    "smoke": SMOKE,
}
