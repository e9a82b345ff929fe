"""Settings of the pipeline by name."""

from typing import Any

from experiments.compression.methods import ONE_SHOT

DEFAULT = "mnist5k"
MNIST5K: dict[str, Any] = {
    "model": "lenet300_100",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "batch_size": 100,
    "epochs": 20,
    "execution": "sparse",
}
"""The bundled digits."""
MNIST: dict[str, Any] = {
    **MNIST5K,
    "dataset": "mnist",
    "methods": ("granet+ham",),
    "density": (0.05, 0.03),
    "epochs": 10,
    "move_epochs": 30,
    "share_epochs": 2,
}
"""All of MNIST, as in Deep Compression, whose `lenet300_100` keeps 8 % of the weights."""
LENET5: dict[str, Any] = {
    **MNIST,
    "model": "lenet5",
    "density": (0.04, 0.02),
    "epochs": 5,
    "move_epochs": 10,
    "execution": "dense",
}
"""Likewise `lenet5`, in a third of the epochs."""
SURGEONS: dict[str, Any] = {
    **MNIST5K,
    "methods": ONE_SHOT,
    "density": (0.5, 0.3, 0.2, 0.1, 0.05, 0.02),
    "retrain_epochs": 0,
    "levels": (),
    "repeats": 0,
}
"""Cuts alone, from 50 to 98 % of the weights, without any retraining."""
SMOKE: dict[str, Any] = {
    **MNIST5K,
    "widths": "30,20",
    "train_images": 1000,
    "methods": ("iterative_layer_obs", "granet"),
    "density": (0.1,),
    "seeds": 1,
    "epochs": 4,
    "rounds": 2,
    "retrain_epochs": 1,
    "share_epochs": 1,
    "levels": (8,),
    "repeats": 3,
    "execution": "dense",
}
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: MNIST5K,
    "mnist": MNIST,
    "lenet5": LENET5,
    "one_shot": SURGEONS,
    "smoke": SMOKE,
}
