"""What a smaller network saves, as far as shapes say: counts, multiply-adds, bytes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtickets.types import Ticket


class Size(NamedTuple):
    """A ticket's size.

    Attributes:
      parameters: entries of the parameters, batch norms and biases among them.
      kept: those that the mask keeps.
      multiply_adds: of one image, zeros among the weights counted too.
      bytes: of parameters and statistics as arrays; the mask not counted.
    """

    parameters: int
    kept: int
    multiply_adds: int
    bytes: int


class Report(NamedTuple):
    """What was gained.

    Attributes:
      units: group -> units that stay, and all of them before.
      before: the size of the ticket.
      after: the size of what was made of it.
    """

    units: Mapping[str, tuple[int, int]]
    before: Size
    after: Size


def size(ticket: Ticket, adds: Mapping[str, int]) -> Size:
    """A ticket's size.

    Args:
      ticket: unbatched.
      adds: what its net multiplies for one image (`nets.multiply_adds`).
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
    """A row a quantity: `quantity`, `before`, `after`, and `ratio`, before over after."""
    pairs = zip(Size._fields, report.before, report.after, strict=True)
    return [
        {"quantity": name, "before": old, "after": new, "ratio": old / new}
        for name, old, new in pairs
    ]
