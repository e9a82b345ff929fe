"""Settings of learned sparsity by name."""

from typing import Any

DEFAULT = "mnist5k"
MNIST5K: dict[str, Any] = {
    "model": "lenet300_100",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "batch_size": 100,
    "epochs": 20,
}
"""The bundled digits, in the optimiser of the papers and a tenth of their epochs."""
MNIST: dict[str, Any] = {**MNIST5K, "dataset": "mnist", "epochs": 200, "published": True}
"""All of MNIST at the published length and strengths."""
LENET5: dict[str, Any] = {**MNIST, "model": "lenet5"}
SMOKE: dict[str, Any] = {
    **MNIST5K,
    "widths": "30,20",
    "train_images": 700,
    "methods": ("continuous_sparsification", "group_lasso", "granet", "magnitude", "imp"),
    "strengths": (1e-5, 1e-2),
    "control_density": (0.2, 0.1),
    "seeds": 2,
    "epochs": 2,
    "batch_size": 50,
    "retrain_epochs": 1,
    "repeats": 3,
}
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: MNIST5K,
    "mnist": MNIST,
    "lenet5": LENET5,
    "smoke": SMOKE,
}
