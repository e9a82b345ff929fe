"""The sizes of a network before and after compression: counts, multiply-adds, bytes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtickets.types import Ticket


class Size(NamedTuple):
    """A ticket's size.

    Attributes:
      parameters: the number of parameters, including batch norms and biases.
      kept: the number of parameters that the mask keeps.
      multiply_adds: of one image, including those with pruned weights.
      bytes: the bytes of parameters and statistics, without the mask.
    """

    parameters: int
    kept: int
    multiply_adds: int
    bytes: int


class Report(NamedTuple):
    """The effect of a compression.

    Attributes:
      units: group -> the number of kept units, and of all units before.
      before: the size of the ticket before.
      after: the size of the result.
    """

    units: Mapping[str, tuple[int, int]]
    before: Size
    after: Size


def size(ticket: Ticket, adds: Mapping[str, int]) -> Size:
    """A ticket's size.

    Args:
      ticket: unbatched.
      adds: leaf -> the multiply-adds of one image (`nets.multiply_adds`).

    >>> ticket = Ticket({"w": np.ones(4, "f")}, {}, {"w": np.array([True, False, True, False])}, 0)
    >>> size(ticket, {"w": 4})
    Size(parameters=4, kept=2, multiply_adds=4, bytes=16)
    """
    leaves = jax.tree.leaves(ticket.params)
    arrays = leaves + jax.tree.leaves(ticket.stats)
    return Size(
        sum(leaf.size for leaf in leaves),
        sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(ticket.mask)),
        sum(adds.values()),
        sum(leaf.size * leaf.dtype.itemsize for leaf in arrays),
    )


def rows(report: Report) -> list[dict[str, Any]]:
    """One row for each quantity: `quantity`, `before`, `after`, and `ratio`, before over after.

    >>> before, after = Size(100, 100, 80, 400), Size(50, 50, 20, 200)
    >>> [(row["quantity"], row["ratio"]) for row in rows(Report({}, before, after))]
    [('parameters', 2.0), ('kept', 2.0), ('multiply_adds', 4.0), ('bytes', 2.0)]
    """
    pairs = zip(Size._fields, report.before, report.after, strict=True)
    return [
        {"quantity": name, "before": old, "after": new, "ratio": old / new}
        for name, old, new in pairs
    ]
