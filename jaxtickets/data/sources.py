"""The facts about each data set that are known before it is loaded."""

from typing import NamedTuple


class Source(NamedTuple):
    """The facts about a data set.

    Attributes:
      name: its name here and in TFDS.
      shape: `(h, w, c)` of an image.
      classes: the number of classes.
      mean, std: `c` per-channel statistics of the original training images, with pixels scaled to
        [0, 1].
      train, validation, test: the numbers of examples; the validation set is taken from the
        training set.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    validation: int
    test: int


SPLIT_SEED = 20_190_509
"""The seed that selects the held-out examples; changing it changes every result."""

MNIST = Source("mnist", (28, 28, 1), 10, (0.1307,), (0.3081,), 55_000, 5000, 10_000)

_SOURCES = (
    MNIST._replace(name="mnist5k", train=3500, validation=500, test=1000),
    MNIST,
    MNIST._replace(name="fashion_mnist", mean=(0.2860,), std=(0.3530,)),
    Source(
        name="cifar10",
        shape=(32, 32, 3),
        classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        train=45_000,
        validation=5000,
        test=10_000,
    ),
    Source("digits", (8, 8, 1), 10, (0.3055,), (0.3761,), train=1097, validation=300, test=400),
)
SOURCES = {source.name: source for source in _SOURCES}
"""The data sets by name: one of TFDS takes an entry here, and nothing else."""
