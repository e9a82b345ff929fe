"""NamedTuples and callable types that the families share; no logic.

Arrays are `jax.Array` or `numpy.ndarray`; shapes stand in backticks with `n` examples, `h` and `w`
pixels, `c` channels. A PyTree of parameters is a nested dict whose leaves are addressed by paths
such as `conv1/kernel`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = Any
Key = jax.Array
PyTree = Any
Params = Any
Stats = Any
Mask = Any
"""PyTree of bool with the treedef and the shapes of the parameters; True keeps a weight."""

Scores = Any
"""PyTree of float with the treedef and the shapes of the parameters; higher is kept first."""

Prunable = tuple[str, ...]
"""Sorted leaf paths: what is ranked and counted. Hashable, so that it can be a static argument."""

Keep = Any
"""How many weights stay: one integer over all prunable leaves, or a mapping path -> integer."""

UnitMask = Mapping[str, Array]
"""`{group: bool[units]}`: which filters or neurons stay."""


class Feed(NamedTuple):
    """A layer that reads a group of units.

    Attributes:
      layer: name of the layer; its kernel's input axis is the last but one.
      repeat: how often the group repeats along that axis, the unit index running fastest: 1, or
        the number of positions `h * w` where a flatten stands between.
    """

    layer: str
    repeat: int


class Units(NamedTuple):
    """A group of units (filters or neurons) that stay or go together.

    Attributes:
      name: the group's name: that of its first producer.
      size: the number of units.
      producers: the layers whose kernels' last axis, and biases, hold these units.
      norms: the batch-norm layers whose scale, shift and statistics hold these units.
      consumers: the layers that read these units.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[Feed, ...]


Wiring = tuple[Units, ...]
"""A net's groups of units in forward order; the output layer's units are not among them."""


class Model(NamedTuple):
    """A net as two pure functions.

    Attributes:
      init: `init(key) -> (params, stats)`; `stats` is `{}` for a net without batch norm.
      apply: `apply(params, stats, images, key, train) -> (logits[n, classes], stats)`; the images
        are float and normalised; `key` feeds dropout, and may be None when `train` is False.
    """

    init: Callable[[Key], tuple[Params, Stats]]
    apply: Callable[..., tuple[jax.Array, Stats]]


class Split(NamedTuple):
    """Examples: `images` uint8`[n, h, w, c]`, `labels` int32`[n]`."""

    images: Array
    labels: Array


class Dataset(NamedTuple):
    """A classification data set on the host.

    Attributes:
      name: its name.
      train, validation, test: disjoint `Split`s.
      mean, std: per-channel statistics of pixels scaled to [0, 1].
      classes: the number of classes.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int


class Ticket(NamedTuple):
    """A network's parameters and a mask over them: arrays alone.

    Attributes:
      params: the parameters that the mask selects from, dense.
      stats: batch statistics, `{}` where there are none.
      mask: PyTree of bool like `params`.
      rewind_step: int32 scalar: the training step that `params` come from, 0 for initialisation.
    """

    params: Params
    stats: Stats
    mask: Mask
    rewind_step: Array


class TrainState(NamedTuple):
    """All that a training step reads and writes.

    Attributes:
      params: parameters; `params == where(mask, params, fill)` holds after every step.
      stats: batch statistics.
      opt_state: the state of a sparse optimiser, see `dynamic.base.SparseState`.
      method_state: what a pruning method carries along; `()` if nothing.
      step: int32 scalar, the number of steps taken.
    """

    params: Params
    stats: Stats
    opt_state: Any
    method_state: Any
    step: Array

    @property
    def mask(self) -> Mask:
        """PyTree of bool like `params`: what the optimiser keeps."""
        return self.opt_state.mask


class Loss(Protocol):
    """`loss(params, stats, batch, key) -> (scalar, (stats, metrics))`, in training mode.

    `batch` is a `Split` on the device, `metrics` a dict of scalars.
    """

    def __call__(
        self, params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        """Loss, new statistics and metrics of one batch."""
        ...


Schedule = Callable[[Array], Array]
"""`schedule(step) -> value`; traceable in the step."""
