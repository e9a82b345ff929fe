"""What is known of each data set before it is loaded."""

from typing import NamedTuple


class Source(NamedTuple):
    """A data set's facts.

    Attributes:
      name: its name here and in TFDS.
      shape: `(h, w, c)` of an image.
      classes: the number of classes.
      mean, std: per-channel statistics of the original training images, pixels scaled to [0, 1].
      train, validation, test: the numbers of examples, the validation cut from the training set.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    validation: int
    test: int


MNIST5K = Source("mnist5k", (28, 28, 1), 10, (0.1307,), (0.3081,), 3500, 500, 1000)
MNIST = Source("mnist", (28, 28, 1), 10, (0.1307,), (0.3081,), 55_000, 5000, 10_000)
FASHION_MNIST = MNIST._replace(name="fashion_mnist", mean=(0.2860,), std=(0.3530,))
CIFAR10 = Source(
    name="cifar10",
    shape=(32, 32, 3),
    classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    train=45_000,
    validation=5000,
    test=10_000,
)

SPLIT_SEED = 20_190_509
"""Decides which examples are held out; changing it changes every number."""

SOURCES = {source.name: source for source in (MNIST5K, MNIST, FASHION_MNIST, CIFAR10)}
