"""Settings of the classification experiment by name."""

from typing import Any

from jaxtickets.gates import priors

DEFAULT = "mnist5k"
MNIST5K: dict[str, Any] = {"model": "lenet300_100", "batch_size": 100, "epochs": 20}
"""The bundled digits."""
MNIST: dict[str, Any] = {
    "models": ("lenet5", "scnn"),
    "dataset": "mnist",
    "other_dataset": "fashion_mnist",
    "batch_size": 128,
    "epochs": 20,
}
"""All of MNIST, in the two nets of the published table."""
FASHION: dict[str, Any] = {**MNIST, "dataset": "fashion_mnist", "other_dataset": "mnist"}
CIFAR10: dict[str, Any] = {
    "models": ("alexnet", "vgg11", "resnet18", "resnet34"),
    "dataset": "cifar10",
    "optimizer": "momentum",
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "warmup": 1000,
    "augmented": True,
    "batch_size": 128,
    "epochs": 100,
    "deviation_rate": 1.0,
    "retrain_epochs": 20,
}
"""CIFAR-10 with crops and flips, for a GPU."""
BLUNDELL: dict[str, Any] = {
    "model": "lenet300_100",
    "widths": "400,400",
    "dataset": "mnist",
    "other_dataset": "fashion_mnist",
    "methods": ("bayes_by_backprop",),
    "prior": "scale_mixture",
    "prior_pi": priors.PI[1],
    "deviation": 0.05,
    "batch_size": 128,
    "epochs": 300,
    "retrain_epochs": 0,
}
"""The nets and the prior of Blundell et al., 2015; the others by --widths=800,800 or 1200,1200."""
SMOKE: dict[str, Any] = {
    "model": "lenet300_100",
    "widths": "20,10",
    "use_bias": False,
    "methods": ("moped",),
    "density": (0.2,),
    "seeds": 2,
    "train_images": 500,
    "epochs": 4,
    "optimizer": "momentum",
    "learning_rate": 0.05,
    "deviation_rate": 1.0,
    "batch_size": 50,
    "retrain_epochs": 1,
    "samples": 3,
    "angles": (0.0, 45.0),
    "noises": (0.0, 0.5),
    "shift_images": 100,
}
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: MNIST5K,
    "mnist": MNIST,
    "fashion": FASHION,
    "cifar10": CIFAR10,
    "blundell": BLUNDELL,
    "smoke": SMOKE,
}
