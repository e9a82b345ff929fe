"""Settings of sparse trainings by name."""

from typing import Any

DEFAULT = "lenet300_100"
LENET: dict[str, Any] = {
    "model": "lenet300_100",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
    "batch_size": 100,
    "epochs": 20,
}
"""The bundled digits, in about the settings of the papers on `lenet300_100`."""
MNIST: dict[str, Any] = {
    **LENET,
    "dataset": "mnist",
    "methods": (
        *("dense", "static", "set", "rigl", "chts", "sparse_momentum", "granet", "gradual"),
        *("static+ham", "set+ham", "rigl+ham", "granet+ham"),
    ),
    "density": (0.1, 0.05, 0.02, 0.01),
    "epochs": 10,
    "rescale": True,
    "rewind": False,
    "execution": "sparse",
}
"""All of MNIST at the densities of published tables, a tenth of their epochs."""
CHTS: dict[str, Any] = {
    "model": "mlp",
    "dataset": "mnist",
    "density": (0.01,),
    "methods": ("dense", "static", "set", "rigl", "gradual", "granet", "chts"),
    "rewind": False,
    "rescale": True,
    "execution": "sparse",
    "optimizer": "momentum",
    "learning_rate": 0.025,
    "learning_rates": "linear",
    "weight_decay": 5e-4,
    "prune_output": False,
    "batch_size": 32,
    "epochs": 100,
}
"""The comparison of Zhang et al., 2025, at its published length; its output layer is dense."""
SMOKE: dict[str, Any] = {
    **LENET,
    "widths": "30,20",
    "methods": ("dense", "static", "rigl+ham", "granet", "deep_rewiring"),
    "density": (0.2, 0.1),
    "seeds": 2,
    "epochs": 4,
    "train_images": 700,
    "batch_size": 50,
    "move_every": 7,
    "execution": "sparse",
}
PRESETS: dict[str, dict[str, Any]] = {DEFAULT: LENET, "mnist": MNIST, "chts": CHTS, "smoke": SMOKE}
