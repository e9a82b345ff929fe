"""Settings of a net, its data and its training; each field is also a flag of the same name."""

import dataclasses

from experiments.harness.settings import (
    MOST_EPOCHS,
    MOST_FACTOR,
    MOST_RUNS,
    MOST_SEED,
    MOST_STEPS,
    Except,
    Idle,
    option,
)
from jaxtickets import data, nets, optimizers
from jaxtickets.data.sources import STREAMED
from jaxtickets.penalties import PENALTIES

INITIALIZERS = ("", *nets.INITIALIZERS)


@dataclasses.dataclass(frozen=True)
class NetSettings:
    """The net and the data set."""

    model: str = option("lenet5", "network architecture", nets.names())
    widths: str = option("", "units of each layer, comma-separated; empty: as published")
    dataset: str = option("mnist5k", "data set", (*data.NAMES, *STREAMED))
    image_size: int = option(
        0, "pixels of a side of the crops of photographs; 0: as usual", least=0, most=4096
    )
    train_images: int = option(
        0, "train on the first N training images only; 0: all", least=0, most=10**9
    )
    initializer: str = option("", "weight initialiser (empty: as published)", INITIALIZERS)
    use_bias: bool = option(True, "give layers a bias")
    batch_norm: bool = option(
        False, "add batch norm after hidden layers, if the net has the option"
    )
    prune_output: bool = option(True, "prune the output layer too")
    seed: int = option(
        0,
        "first seed; a seed fixes initialisation, data order, masks and search",
        least=0,
        most=MOST_SEED,
    )
    seeds: int = option(3, "number of seeds", least=1, most=MOST_RUNS)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How nets are trained."""

    optimizer: str = option("adam", "optimiser", optimizers.NAMES)
    learning_rate: float = option(0.001, "peak learning rate", above=0, most=MOST_FACTOR)
    learning_rates: str = option("cosine", "learning rate schedule", optimizers.SHAPES)
    drops: str = option(
        "0.5,0.75",
        "fractions of the training at which --learning_rates=steps divides the rate by ten",
    )
    momentum: float = option(0.9, "coefficient of --optimizer=momentum", least=0, most=1)
    weight_decay: float = option(
        0.0, "lambda of the L2 penalty lambda/2 w^2", least=0, most=MOST_FACTOR
    )
    warmup: int = option(0, "steps of linear warm-up", least=0, most=MOST_STEPS)
    batch_size: int = option(128, "examples per training step", least=1, most=10**9)
    epochs: int = option(5, "passes over the training data", least=1, most=MOST_EPOCHS)
    iterations: int = option(
        0, "training steps; 0: as many as --epochs takes", least=0, most=MOST_STEPS
    )
    look_every: int = option(
        0, "steps between evaluations on validation data; 0: one epoch", least=0, most=MOST_STEPS
    )
    test_every: int = option(
        0,
        "steps between evaluations on test data; 0: at the end only",
        least=0,
        most=MOST_STEPS,
    )
    augmented: bool = option(False, "pad, crop and flip the training images at random")
    penalty: str = option("", "penalty added to the loss (empty: none)", ("", *PENALTIES))
    penalty_strength: float = option(
        1e-4, "factor of the penalty in the loss", least=0, most=MOST_FACTOR
    )


IDLE: Idle = {
    "drops": ({"learning_rates": Except(("steps",))},),
    "momentum": ({"optimizer": Except(("momentum",))},),
    "epochs": ({"iterations": Except((0,))},),
    "penalty_strength": ({"penalty": ("",)},),
}
"""The training flags that can be without effect, and the choices under which they are."""
