"""NamedTuples and callable types that the families share; no logic.

Arrays are `jax.Array` or `numpy.ndarray`. Shapes stand in backticks, with `n` examples, `h` and `w`
pixels, and `c` channels. A PyTree of parameters is a nested dict whose leaves are addressed by
paths such as `conv1/kernel`.
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
"""Sorted paths of the leaves that are ranked and counted; hashable, so it can be static."""

Keep = Any
"""How many weights to keep: an integer over all prunable leaves, or a mapping path -> integer."""


class Gaussian(NamedTuple):
    """Independent Gaussian weights.

    Attributes:
      mean, variance: PyTrees of float with the treedef and the shapes of the parameters; where the
        variance is zero, a weight is its mean.
    """

    mean: Params
    variance: Params


UnitMask = Mapping[str, Array]
"""`{group: bool[units]}`: the filters or neurons that are kept."""


class Feed(NamedTuple):
    """A layer that reads a group of units.

    Attributes:
      layer: the layer's name; the input axis of its kernel is the last but one.
      repeat: how often the group repeats along that axis, with the unit index varying fastest: 1,
        or the number of positions `h * w` after a flatten.
    """

    layer: str
    repeat: int


class Span(NamedTuple):
    """The positions of a group's units along one axis of a leaf.

    Attributes:
      path: the leaf's path in the parameters.
      axis: the axis, counted from the end.
      units: for each position, the index of its unit in the group, or -1 if it belongs to none.
    """

    path: str
    axis: int
    units: tuple[int, ...]


class Units(NamedTuple):
    """A group of units (filters or neurons) that are kept or removed together.

    Attributes:
      name: the group's name: that of its first producer.
      size: the number of units.
      producers: the layers that compute these units: the last axis of their kernels, and their
        biases, index the units.
      norms: the batch-norm layers whose scale, shift and statistics index the units.
      consumers: the layers that read these units.
      spans: all other axes of leaves that index the units: in another order, among other units, or
        at other places than the last axes of a kernel, as after a concatenation, or of heads.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[Feed, ...]
    spans: tuple[Span, ...] = ()


Wiring = tuple[Units, ...]
"""A net's groups of units in forward order, without the units of the output layer."""


class Model(NamedTuple):
    """A net as two pure functions.

    Attributes:
      init: `init(key) -> (params, stats)`; `stats` is `{}` for a net without batch norm.
      apply: `apply(params, stats, images, key, train) -> (logits[n, classes], stats)`. The images
        are float and normalised. The key feeds dropout, and may be None if `train` is False.
    """

    init: Callable[[Key], tuple[Params, Stats]]
    apply: Callable[..., tuple[jax.Array, Stats]]


class Split(NamedTuple):
    """Examples and their labels.

    Attributes:
      images: uint8`[n, h, w, c]`.
      labels: int32`[n]`.
    """

    images: Array
    labels: Array


class Dataset(NamedTuple):
    """A classification data set on the host.

    Attributes:
      name: its name.
      train, validation, test: disjoint `Split`s.
      mean, std: float`[c]` tuples, the statistics of each channel's pixels scaled to [0, 1].
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
    """A network's parameters and a mask over them: only arrays.

    Attributes:
      params: the dense parameters that the mask selects from.
      stats: batch statistics, `{}` if the net has none.
      mask: PyTree of bool like `params`.
      rewind_step: int32 scalar, the training step of `params`; 0 for the initialisation.
    """

    params: Params
    stats: Stats
    mask: Mask
    rewind_step: Array


class TrainState(NamedTuple):
    """Everything that a training step reads and writes.

    Attributes:
      params: the parameters; `params == where(mask, params, fill)` after every step.
      stats: batch statistics, `{}` if the net has none.
      opt_state: the state of a sparse optimiser, see `dynamic.base.SparseState`.
      method_state: what a pruning method carries through the training; `()` if nothing.
      step: int32 scalar, the number of steps taken.
      trained: what is trained if `params` and `stats` are its moving averages, see
        `weight_average`; `()` if they are trained themselves.
    """

    params: Params
    stats: Stats
    opt_state: Any
    method_state: Any
    step: Array
    trained: Any = ()

    @property
    def mask(self) -> Mask:
        """PyTree of bool like `params`: the optimiser's current mask."""
        return self.opt_state.mask


class Loss(Protocol):
    """`loss(params, stats, batch, key) -> (scalar, (stats, metrics))`, in training mode.

    `batch` is a `Split` on the device, `metrics` a dict of scalars.
    """

    def __call__(
        self, params: Params, stats: Stats, batch: Split, key: Key
    ) -> tuple[jax.Array, tuple[Stats, dict[str, jax.Array]]]:
        """The loss, the new statistics and the metrics of one batch."""
        ...


Schedule = Callable[[Array], Array]
"""`schedule(step) -> value`; the step may be traced."""
