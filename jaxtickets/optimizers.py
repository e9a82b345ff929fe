"""The optimisers of the field's papers, composed from optax.

The learning rate is `rate · shape(step)` after a linear warm-up. The rate and the warm-up may be
traced, so that they can be batch axes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks, roles
from jaxtickets.types import Array, Params, PyTree, Schedule

NAMES = ("sgd", "momentum", "adam", "adadelta", "rmsprop")
SHAPES = ("constant", "steps", "cosine", "linear", "exponential")


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
    decay_all: bool = True,
) -> optax.GradientTransformation:
    """An optax optimiser with learning rate `rate · shape(step) · min(1, (step + 1) / warmup)`.

    Args:
      name: `sgd`; `momentum` (heavy ball); `adam`, with epsilon 1e-8; `adadelta`, with rho 0.9 and
        epsilon 1e-6; `rmsprop`, see below.
      rate: the learning rate, may be traced.
      shape: step -> factor; None for 1.
      momentum: the decay factor of `momentum` and `rmsprop`.
      weight_decay: λ of the L2 penalty λ/2 · w², whose gradient is added before anything else, as
        in PyTorch. It is not AdamW's decoupled decay.
      warmup: steps of linear warm-up, may be traced; 0 for none.
      decay_all: whether all parameters decay; if not, only kernels do, and biases and batch norms
        don't, as in Goyal et al. 2017, arXiv:1706.02677, section 5.1.

    With rate r, momentum m and gradient g, `rmsprop` is

        v = 0.9 v + 0.1 g²,    b = m b + r g / sqrt(v + 1),    w = w - b,

    where v starts at 1. Epsilon 1, within the root, is Szegedy et al.'s (2016, section 8); with v's
    start and r within b it is TensorFlow's form, which MobileNetV2 (2018, section 6.1) uses with m
    = 0.9.

    Raises:
      ValueError: an unknown name.

    >>> momentum = optimizer("momentum", rate=0.1, momentum=0.9)
    >>> gradient = {"w": jnp.ones(2)}
    >>> first, state = momentum.update(gradient, momentum.init(gradient))
    >>> second, _ = momentum.update(gradient, state)
    >>> [[round(w, 3) for w in update["w"].tolist()] for update in (first, second)]
    [[-0.1, -0.1], [-0.19, -0.19]]
    """
    if name not in NAMES:
        raise ValueError(f"unknown optimiser '{name}'; there are {', '.join(NAMES)}")
    scale = {
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(momentum),
        "adam": optax.scale_by_adam,
        "adadelta": lambda: optax.scale_by_adadelta(rho=0.9, eps=1e-6),
        "rmsprop": lambda: optax.scale_by_rms(decay=0.9, eps=1.0, initial_scale=1.0),
    }[name]()
    decay = optax.identity()
    if weight_decay:
        decay = optax.add_decayed_weights(weight_decay, None if decay_all else _kernels)
    now = learning_rate(rate, shape, warmup)
    steps = optax.scale_by_schedule(lambda step: -now(step))
    last = {"rmsprop": [optax.trace(momentum)]}.get(name, [])
    return optax.chain(decay, scale, steps, *last)


def _kernels(params: Params) -> PyTree:
    """Like the parameters: whether each is a kernel or an embedding."""
    kinds = map(roles.is_kernel_or_embedding, masks.paths(params), jax.tree.leaves(params))
    return jax.tree.unflatten(jax.tree.structure(params), kinds)


def learning_rate(rate: Array, shape: Schedule | None = None, warmup: Array = 0) -> Schedule:
    """step -> `rate · shape(step) · min(1, (step + 1) / warmup)`; see `optimizer`.

    >>> rate = learning_rate(0.1, warmup=10)
    >>> [round(float(rate(step)), 3) for step in (0, 4, 9, 20)]
    [0.01, 0.05, 0.1, 0.1]
    """
    factor = shape if shape is not None else lambda step: jnp.float32(1.0)

    def now(step: Array) -> Array:
        return rate * factor(step) * jnp.minimum(1.0, (step + 1) / jnp.maximum(warmup, 1))

    return now


def decay_shape(
    name: str,
    steps: int,
    drops: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
    last: float = 0.01,
) -> Schedule:
    """The shape of a learning rate over a training of `steps` steps, with peak 1.

    Args:
      name: `constant`; `steps`, which multiplies by `factor` at each of `drops`; `cosine`, to zero;
        `linear`, and `exponential`, `last^(step / steps)`, to `last`.
      steps: the number of training steps.
      drops: where `steps` drops, as fractions of the training.
      factor: the factor of each drop.
      last: the factor in the end, above 0.

    Raises:
      ValueError: an unknown name.

    >>> shape = decay_shape("steps", steps=100)
    >>> [round(float(shape(step)), 3) for step in (0, 50, 75)]
    [1.0, 0.1, 0.01]
    """
    shapes: dict[str, Callable[[], Schedule]] = {
        "constant": lambda: optax.constant_schedule(1.0),
        "steps": lambda: optax.piecewise_constant_schedule(
            1.0, {round(drop * steps): factor for drop in drops}
        ),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, max(steps, 1)),
        "linear": lambda: optax.linear_schedule(1.0, last, max(steps, 1)),
        "exponential": lambda: optax.exponential_decay(1.0, max(steps, 1), last),
    }
    if name not in shapes:
        raise ValueError(f"unknown learning-rate schedule '{name}'; there are {', '.join(shapes)}")
    return shapes[name]()
