"""Trainings as in papers, for photographs of 1,000 classes: the values of `--recipe`.

A recipe sets flags of `TrainSettings`; explicit flags come before it. Lengths are in epochs and
fractions of the training, so that a shorter training keeps the form of its learning rate. Where a
paper lowers the rate "when the validation error stops improving", the drops here are spread evenly.
"""

from typing import Any

RESNET: dict[str, Any] = {
    "optimizer": "momentum",
    "momentum": 0.9,
    "batch_size": 256,
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
    "augmented": True,
    "colours": "lighting",
}
RECIPES: dict[str, dict[str, Any]] = {
    # Krizhevsky et al. 2012, section 5: 90 epochs, the rate divided by ten three times. Without
    # the response normalisation and the initialisation of their net.
    "alexnet": {
        "optimizer": "momentum",
        "momentum": 0.9,
        "batch_size": 128,
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "learning_rates": "steps",
        "drops": "0.25,0.5,0.75",
        "epochs": 90,
        "augmented": True,
        "colours": "lighting",
    },
    # Simonyan and Zisserman 2015, section 3.1: 370,000 steps of 256 images, 74 epochs, the rate
    # divided by ten three times. Our nets have batch norm, which lets them begin at random weights.
    "vgg16": {
        "optimizer": "momentum",
        "momentum": 0.9,
        "batch_size": 256,
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "learning_rates": "steps",
        "drops": "0.25,0.5,0.75",
        "epochs": 74,
        "augmented": True,
        "colours": "lighting",
    },
    # He et al. 2016, section 3.4, with the drops after 30, 60 and 90 epochs that became common.
    "resnet": {
        **RESNET,
        "learning_rates": "steps",
        "drops": "0.3,0.6,0.9",
        "epochs": 100,
    },
    # Goyal et al. 2017, sections 2.2 and 5.1: five epochs of warm-up, no decay of batch norms; with
    # the cosine of Loshchilov and Hutter 2017, as in He et al. 2019, "Bag of tricks".
    "resnet_warmup": {
        **RESNET,
        "learning_rates": "cosine",
        "warmup_epochs": 5.0,
        "decay_all": False,
        "label_smoothing": 0.1,
        "epochs": 120,
    },
    # Sandler et al. 2018, section 6.1, and the authors' TF-slim: 0.98 an epoch, smoothed labels and
    # averaged weights. They don't state the number of epochs, and train on 16 machines, which don't
    # wait for each other, 96 images each.
    "mobilenet_v2": {
        "optimizer": "rmsprop",
        "momentum": 0.9,
        "batch_size": 96,
        "learning_rate": 0.045,
        "learning_rates": "exponential",
        "last_rate": 0.98**300,
        "epochs": 300,
        "weight_decay": 4e-5,
        "decay_all": False,
        "label_smoothing": 0.1,
        "ema": 0.9999,
        "augmented": True,
        "colours": "jitter",
    },
}
