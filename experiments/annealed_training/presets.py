"""Settings of annealed training by name."""

from typing import Any

SMOKE: dict[str, Any] = {
    "dataset": "digits",
    "widths": "30,20",
    "train_images": 1000,
    "batch_size": 32,
    "variants": ("granet", "hot_cycles", "consensus", "exchange"),
    "heat": (1.0,),
    "density": (0.1,),
    "budget": 8.0,
    "seeds": 2,
    "epochs": 2,
    "held_out": 200,
}
MNIST: dict[str, Any] = {
    "dataset": "mnist",
    "held_out": 2000,
    "density": (0.03, 0.015),
    "execution": "sparse",
}
FASHION: dict[str, Any] = MNIST | {"dataset": "fashion_mnist", "density": (0.1, 0.03)}
PRESETS: dict[str, dict[str, Any]] = {"": {}, "mnist": MNIST, "fashion": FASHION, "smoke": SMOKE}
