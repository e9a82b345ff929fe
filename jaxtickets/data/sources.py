"""The facts about each data set that are known before it is loaded."""

from typing import NamedTuple


class Source(NamedTuple):
    """The facts about a data set.

    Attributes:
      name: its name here and in TFDS.
      shape: `(h, w, c)` of an image; of photographs of many sizes, what they are cropped to.
      classes: the number of classes.
      mean, std: `c` per-channel statistics of the original training images, with pixels scaled to
        [0, 1].
      train, validation, test: the numbers of examples; the validation set is taken from the
        training set.
      test_split: the name of the test set in TFDS.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    validation: int
    test: int
    test_split: str = "test"


SPLIT_SEED = 20_190_509
"""The seed that selects the held-out examples; changing it changes every result."""

MNIST = Source("mnist", (28, 28, 1), 10, (0.1307,), (0.3081,), 55_000, 5000, 10_000)
CIFAR100 = Source(
    name="cifar100",
    shape=(32, 32, 3),
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    train=45_000,
    validation=5000,
    test=10_000,
)
IMAGENET = Source(
    name="imagenet2012",
    shape=(224, 224, 3),
    classes=1000,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    train=1_231_167,
    validation=50_000,
    test=50_000,
    test_split="validation",
)
"""ImageNet: its labelled validation set is the test set here."""

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
    CIFAR100,
    CIFAR100._replace(
        name="cifar100_subset",
        mean=(0.5052, 0.4857, 0.4403),
        std=(0.2675, 0.2559, 0.2761),
        train=6000,
        validation=1000,
        test=2000,
    ),
)
SOURCES = {source.name: source for source in _SOURCES}
"""The data sets by name: one of TFDS takes an entry here, and nothing else."""

_STREAMED = (
    IMAGENET,
    IMAGENET._replace(
        name="imagenet_sample", shape=(128, 128, 3), classes=10, train=400, validation=50, test=150
    ),
    IMAGENET._replace(name="imagenette_sample", classes=10, train=350, validation=50, test=150),
)
STREAMED = {source.name: source for source in _STREAMED}
"""The sets of JPEG photographs by name, which are read a batch at a time."""
