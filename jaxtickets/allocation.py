"""Allocations: how many weights each leaf keeps at a given density.

Host arithmetic on shapes; all counts are exact and sum to `total`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxtickets.types import Keep

Shapes = Mapping[str, tuple[int, ...]]


def total(shapes: Shapes, density: float) -> int:
    """`round(density * weights)`, half to even.

    Raises:
      ValueError: the density is outside (0, 1], or so low that no weight is kept.

    >>> total({"fc1/kernel": (10, 10), "out/kernel": (10, 2)}, 0.25)
    30
    """
    if not 0 < density <= 1:
        raise ValueError(f"density {density} is outside (0, 1]")
    kept = round(density * sum(int(np.prod(shape)) for shape in shapes.values()))
    if kept == 0:
        raise ValueError(f"density {density} keeps no weight at all")
    return kept


def global_(shapes: Shapes, density: float, floor: int = 0) -> int:
    """One count for all leaves, which are then ranked together.

    Raises:
      ValueError: the floors alone need more weights than that.

    >>> global_({"fc1/kernel": (10, 10), "out/kernel": (10, 2)}, 0.25)
    30
    """
    kept = total(shapes, density)
    needed = sum(min(floor, int(np.prod(shape))) for shape in shapes.values())
    if kept < needed:
        raise ValueError(
            f"density {density} keeps {kept} weights, a floor of {floor} needs {needed}"
        )
    return kept


def uniform(shapes: Shapes, density: float, floor: int = 0) -> dict[str, int]:
    """The same density in every leaf, up to rounding and the floor; errors as in `apportion`.

    >>> uniform({"fc1/kernel": (10, 10), "out/kernel": (10, 2)}, 0.25)
    {'fc1/kernel': 25, 'out/kernel': 5}
    """
    return apportion(shapes, {p: float(np.prod(s)) for p, s in shapes.items()}, density, floor)


def erk(shapes: Shapes, density: float, floor: int = 0) -> dict[str, int]:
    """Erdős–Rényi-kernel: a leaf's count grows with the sum of its axes, not with their product.

    The density of leaf l is min(1, ε · (sum of its shape) / (product of its shape)), with ε such
    that the counts have the right sum; Evci et al., "Rigging the Lottery", 2020, section 3 (1).
    Errors are those of `apportion`.

    >>> erk({"fc1/kernel": (10, 10), "out/kernel": (10, 2)}, 0.2)  # in the ratio of 20 to 12
    {'fc1/kernel': 15, 'out/kernel': 9}
    """
    return apportion(shapes, {p: float(sum(s)) for p, s in shapes.items()}, density, floor)


ALLOCATIONS: dict[str, Callable[..., Keep]] = {"global": global_, "uniform": uniform, "erk": erk}


def apportion(
    shapes: Shapes, weights: Mapping[str, float], density: float, floor: int = 0
) -> dict[str, int]:
    """Counts in proportion to `weights`, each from `floor` to the leaf's size, with an exact total.

    count = clip(ε · weight, floor, size), with ε found by bisection; rounding follows the largest
    remainders.

    Args:
      shapes: path -> shape.
      weights: path -> positive share.
      density: the fraction that is kept over all leaves, in (0, 1].
      floor: the fewest weights in each leaf; smaller leaves are kept whole.

    Raises:
      ValueError: a leaf would keep no weight (the message names it), or the floors need too many.

    >>> apportion({"a": (4,), "b": (4,)}, weights={"a": 1.0, "b": 3.0}, density=0.5)
    {'a': 1, 'b': 3}
    """
    kept = global_(shapes, density, floor)
    share = np.array([weights[path] for path in shapes], np.float64)
    size = np.array([np.prod(shape) for shape in shapes.values()], np.float64)
    least = np.minimum(floor, size)
    low, high = 0.0, float(np.max(size / share))
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(middle * share, least, size).sum() < kept:
            low = middle
        else:
            high = middle
    exact = np.clip(high * share, least, size)
    count = np.floor(exact + 1e-9)
    order = np.argsort(-(exact - count), kind="stable")
    room = [i for i in order if count[i] < size[i]]
    for i in room[: kept - int(count.sum())]:
        count[i] += 1
    counts = dict(zip(shapes, (int(c) for c in count), strict=True))
    check_counts(counts)
    return counts


def check_counts(counts: Mapping[str, int]) -> None:
    """Raises ValueError if a leaf keeps no weight; the message names the first such leaf.

    >>> check_counts({"fc1/kernel": 3, "out/kernel": 0})
    Traceback (most recent call last):
    ValueError: no weight is left in out/kernel: raise the density or set a floor
    """
    for path, count in counts.items():
        if count == 0:
            raise ValueError(f"no weight is left in {path}: raise the density or set a floor")
