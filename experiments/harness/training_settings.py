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
from experiments.harness.training_recipes import RECIPES
from jaxtickets import data, nets, optimizers
from jaxtickets.data import augment, photographs
from jaxtickets.penalties import PENALTIES

INITIALIZERS = ("", *nets.INITIALIZERS)


@dataclasses.dataclass(frozen=True)
class NetSettings:
    """The net and the data set."""

    model: str = option("lenet5", "network architecture", nets.names())
    widths: str = option("", "units of each layer, comma-separated; empty: as published")
    dataset: str = option(
        "mnist5k",
        "data set; folder: photographs in --data_dir, train/CLASS/x.jpg and val/CLASS/y.jpg",
        (*data.NAMES, *photographs.NAMES),
    )
    image_size: int = option(
        0, "pixels of a side of the crops of photographs; 0: as usual", least=0, most=4096
    )
    corrupt: str = option("refuse", "whether corrupt photographs end the run", ("refuse", "skip"))
    train_images: int = option(
        0, "train on the first N training images only; 0: all", least=0, most=10**9
    )
    initializer: str = option("", "weight initialiser (empty: as published)", INITIALIZERS)
    use_bias: bool = option(True, "give layers a bias")
    batch_norm: bool = option(
        False, "add batch norm after hidden layers, if the net has the option"
    )
    remat: bool = option(
        False, "compute activations again in the backward pass, if the net has the option"
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

    recipe: str = option(
        "", "training as in a paper, which sets other flags (empty: none)", ("", *RECIPES)
    )
    optimizer: str = option("adam", "optimiser", optimizers.NAMES)
    learning_rate: float = option(0.001, "peak learning rate", above=0, most=MOST_FACTOR)
    learning_rates: str = option("cosine", "learning rate schedule", optimizers.SHAPES)
    drops: str = option(
        "0.5,0.75",
        "fractions of the training at which --learning_rates=steps divides the rate by ten",
    )
    last_rate: float = option(
        0.01,
        "last learning rate of --learning_rates=linear and exponential, as a fraction of the peak",
        above=0,
        most=1,
    )
    momentum: float = option(
        0.9, "coefficient of --optimizer=momentum and rmsprop", least=0, most=1
    )
    weight_decay: float = option(
        0.0, "lambda of the L2 penalty lambda/2 w^2", least=0, most=MOST_FACTOR
    )
    decay_all: bool = option(
        True, "weight decay also of biases and batch norms, not of kernels alone"
    )
    warmup: int = option(0, "steps of linear warm-up", least=0, most=MOST_STEPS)
    warmup_epochs: float = option(
        0.0, "epochs of linear warm-up, in place of --warmup; 0: that", least=0, most=MOST_EPOCHS
    )
    batch_size: int = option(128, "examples per training step", least=1, most=10**9)
    accumulate: int = option(
        1,
        "parts in which a step's batch is computed, whose gradients are averaged",
        least=1,
        most=10**9,
    )
    ghost_batches: int = option(
        1,
        "parts of a training batch that batch norms see apart, such as as many as --mode=data has "
        "devices; 1: the whole batch",
        least=1,
        most=10**9,
    )
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
    augmented: bool = option(
        False, "pad, crop and flip the training images at random; photographs: random crops"
    )
    colours: str = option(
        "", "random colours of the training images (empty: as they are)", ("", *augment.COLOURS)
    )
    ema: float = option(
        0.0,
        "decay of a moving average of the weights, which is evaluated and kept; 0: no average",
        least=0,
        below=1,
    )
    label_smoothing: float = option(
        0.0, "share of a training label that is spread over all classes", least=0, below=1
    )
    penalty: str = option("", "penalty added to the loss (empty: none)", ("", *PENALTIES))
    penalty_strength: float = option(
        1e-4, "factor of the penalty in the loss", least=0, most=MOST_FACTOR
    )


IDLE: Idle = {
    "drops": ({"learning_rates": Except(("steps",))},),
    "last_rate": ({"learning_rates": Except(("linear", "exponential"))},),
    "momentum": ({"optimizer": Except(("momentum", "rmsprop"))},),
    "decay_all": ({"weight_decay": (0.0,)},),
    "warmup": ({"warmup_epochs": Except((0.0,))},),
    "epochs": ({"iterations": Except((0,))},),
    "penalty_strength": ({"penalty": ("",)},),
}
"""The training flags that can be without effect, and the choices under which they are."""
