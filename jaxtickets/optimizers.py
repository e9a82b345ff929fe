"""The optimisers of the field's papers, composed from optax.

The learning rate is `rate · shape(step)` after a linear warm-up. The rate and the warm-up may be
traced, so that they can be batch axes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import optax

from jaxtickets.types import Array, Schedule

NAMES = ("sgd", "momentum", "adam", "adadelta")
SHAPES = ("constant", "steps", "cosine", "linear")


class Hyper(NamedTuple):
    """The hyperparameters that may differ between the runs of a batch.

    Attributes:
      rate: float scalar, the peak learning rate.
      warmup: int scalar, steps of linear warm-up from zero, 0 for none. The warm-up multiplies the
        shape, whose drops stay at their steps.
    """

    rate: Array
    warmup: Array = 0


def optimizer(
    name: str,
    rate: Array,
    shape: Schedule | None = None,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    warmup: Array = 0,
) -> optax.GradientTransformation:
    """An optax optimiser with learning rate `rate · shape(step) · min(1, (step + 1) / warmup)`.

    Args:
      name: `sgd`; `momentum` (heavy ball); `adam`, with epsilon 1e-8; `adadelta`, with rho 0.9 and
        epsilon 1e-6.
      rate: the learning rate, may be traced.
      shape: step -> factor; None for 1.
      momentum: the decay factor of `momentum`.
      weight_decay: λ of the L2 penalty λ/2 · w², whose gradient is added before anything else, as
        in PyTorch, for all parameters. It is not AdamW's decoupled decay.
      warmup: steps of linear warm-up, may be traced; 0 for none.

    Raises:
      ValueError: an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown optimiser '{name}'; there are {', '.join(NAMES)}")
    scale = {
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(momentum),
        "adam": optax.scale_by_adam,
        "adadelta": lambda: optax.scale_by_adadelta(rho=0.9, eps=1e-6),
    }[name]()
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    now = learning_rate(rate, shape, warmup)
    return optax.chain(decay, scale, optax.scale_by_schedule(lambda step: -now(step)))


def learning_rate(rate: Array, shape: Schedule | None = None, warmup: Array = 0) -> Schedule:
    """step -> `rate · shape(step) · min(1, (step + 1) / warmup)`; see `optimizer`."""
    factor = shape if shape is not None else lambda step: jnp.float32(1.0)

    def now(step: Array) -> Array:
        return rate * factor(step) * jnp.minimum(1.0, (step + 1) / jnp.maximum(warmup, 1))

    return now


def decay_shape(
    name: str,
    steps: int,
    drops: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> Schedule:
    """The shape of a learning rate over a training of `steps` steps, with peak 1.

    Args:
      name: `constant`; `steps`, which multiplies by `factor` at each of `drops`; `cosine`, to zero;
        `linear`, to a hundredth.
      steps: the number of training steps.
      drops: where `steps` drops, as fractions of the training.
      factor: the factor of each drop.

    Raises:
      ValueError: an unknown name.
    """
    shapes: dict[str, Callable[[], Schedule]] = {
        "constant": lambda: optax.constant_schedule(1.0),
        "steps": lambda: optax.piecewise_constant_schedule(
            1.0, {round(drop * steps): factor for drop in drops}
        ),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, max(steps, 1)),
        "linear": lambda: optax.linear_schedule(1.0, 0.01, max(steps, 1)),
    }
    if name not in shapes:
        raise ValueError(f"unknown learning-rate schedule '{name}'; there are {', '.join(shapes)}")
    return shapes[name]()
