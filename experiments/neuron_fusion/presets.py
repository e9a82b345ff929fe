"""Settings of neuron fusion by name."""

from typing import Any

DEFAULT = "mnist5k"
MNIST5K: dict[str, Any] = {
    "model": "lenet5",
    "batch_norm": True,
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "epochs": 10,
    "cuts": (0.25, 0.5, 0.75),
    "retrain": ("none", "statistics", "finetune", "full"),
    "retrained": ("merge",),
}
"""LeNet-5 with batch norm on the bundled digits, in all ways of retraining."""
FASHION: dict[str, Any] = {
    "model": "lenet300_100",
    "dataset": "fashion_mnist",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "epochs": 20,
    "which": (
        *("l1", "l2", "geometric_median", "cosine", "activations", "kmeans"),
        *("hungarian", "optimal_transport", "random"),
    ),
    "how": ("prune", "merge", "average", "weighted", "regress"),
    "cuts": (0.5, 0.6, 0.7, 0.8),
    "retrain": ("none", "finetune"),
    "retrained": ("merge",),
    "finetune_epochs": 1,
}
"""The published table: Kim et al., 2020, with their rate, momentum and weight decay, and a tenth of
their 200 epochs."""
VGG16: dict[str, Any] = {
    "model": "vgg16",
    "dataset": "cifar10",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "learning_rates": "steps",
    "weight_decay": 5e-4,
    "augmented": True,
    "epochs": 200,
    "which": ("l1", "l2", "geometric_median"),
    "how": ("prune", "merge", "regress"),
    "counts": ("32-64-128-128-256-256-256-256-256-256-256-256-256",),
    "least_cosine": 0.1,
    "retrain": ("none", "statistics", "finetune"),
}
"""The other published table, for an accelerator."""
SMOKE: dict[str, Any] = {
    "model": "lenet300_100",
    "widths": "16,8",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "epochs": 1,
    "batch_size": 250,
    "seeds": 2,
    "which": ("l1", "activations"),
    "how": ("prune", "merge"),
    "cuts": (0.5,),
    "data_images": 200,
    "before_density": (1.0, 0.5),
    "retrain": ("none", "finetune"),
    "retrained": ("merge",),
    "finetune_epochs": 1,
}
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: MNIST5K,
    "fashion": FASHION,
    "vgg16": VGG16,
    "smoke": SMOKE,
}
