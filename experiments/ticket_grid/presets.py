"""Settings of the grid by name: the bundled digits, and MobileNetV2 in full and in small."""

from typing import Any

DEFAULT = "lenet300_100"
LENET: dict[str, Any] = {}
"""The bundled digits: the defaults of all flags."""
MOBILENET: dict[str, Any] = {
    "model": "mobilenet_v2",
    "dataset": "imagenet2012",
    "image_size": 112,
    "thresholds": (60, 65, 70, 75, 80, *range(85, 100)),
    "rewinds": (5, 10, 15, 20, 25, 30, 35, 40),
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "learning_rates": "constant",
    "weight_decay": 4e-5,
    "batch_size": 512,
    "epochs": 150,
    "augmented": True,
    "seeds": 1,
    "cost_trainings": 0,
}
"""The grid of a course project on a cluster: 20 thresholds times 8 rewind epochs of MobileNetV2 on
ImageNet at 112x112, Adam, batches of 512, 150 epochs. Shuffled masks and new initialisations are
added. The project's learning rate and augmentation are not known."""
SMALL: dict[str, Any] = {
    "model": "mobilenet_v2",
    "dataset": "fashion_mnist",
    "form": "large",
    "widths": "8,8,32,8,32,32,8,32,32,32,16,64,64,64,64,16,64,64,64,24,96,96,96,32,128",
    "train_images": 5000,
    "thresholds": (30, 50, 60, 70, 80),
    "rewinds": (0, 2, 4),
    "optimizer": "adam",
    "learning_rate": 4e-3,
    "learning_rates": "cosine",
    "weight_decay": 4e-5,
    "batch_size": 32,
    "epochs": 6,
    "look_every": 312,
    "part": 9,
    "seeds": 2,
    "cost_trainings": 0,
}
"""The grid in the size of two CPU cores: all 17 blocks, about a quarter of the width (an eighth at
the end), 5,000 photographs of clothing. The form is that for large images, which halves 28x28
pixels five times: the form for small ones takes ten times as long."""
SMOKE: dict[str, Any] = {
    "widths": "30,20",
    "train_images": 1000,
    "batch_size": 40,
    "seeds": 2,
    "thresholds": (60, 90),
    "rewinds": (0, 1),
    "epochs": 2,
    "part": 4,
    "cost_trainings": 2,
}
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: LENET,
    "mobilenet_v2": MOBILENET,
    "mobilenet_v2_small": SMALL,
    "smoke": SMOKE,
}
