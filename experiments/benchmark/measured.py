"""Rows of the benchmark: what was measured, how it compares, and what bounds it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.workloads import Call, Work
from experiments.harness import timing
from jaxtickets import runs


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      name: what was measured.
      value: how much.
      unit: of what.
      ratio: how it compares, in the same run; None if it isn't compared.
      against: what the ratio is of or against.
      bar: what the ratio is meant to reach, None if nothing.
      holds: whether it does.
      products: share of the machine's matrix products, None if it has none to count.
      memory: share of the machine's memory rate, likewise.
      bound: what takes most of the time, see `bound_by`.
    """

    name: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""
    bar: float | None = None
    holds: bool | None = None
    products: float | None = None
    memory: float | None = None
    bound: str = ""


def bound_by(products: float, memory: float) -> str:
    """What takes most of the time, by the shares that two of three things have in it."""
    shares = {"matrix products": products, "memory": memory, "overhead": 1 - products - memory}
    return max(shares, key=lambda name: shares[name])


def compared(row: Row, ratio: float, against: str, bar: float | None = None) -> Row:
    """The row with its ratio and whether it reaches the bar."""
    holds = None if bar is None else ratio >= bar
    return row._replace(ratio=ratio, against=against, bar=bar, holds=holds)


class Timed(NamedTuple):
    """Times, and what the first of them has of the machine's rates.

    Attributes:
      seconds: of each call.
      products, memory: shares of the first call, see `Row`.
    """

    seconds: list[float]
    products: float
    memory: float

    def row(self, name: str, value: float, unit: str) -> Row:
        """A row that says what bounds the first call."""
        bound = bound_by(self.products, self.memory)
        shares = {"products": self.products, "memory": self.memory, "bound": bound}
        return Row(name, value, unit, **shares)  # type: ignore[arg-type]


def timed(calls: Sequence[Callable[[], Any]], work: Work, repeats: int = 3) -> Timed:
    """Calls made in turns, the first against rates that are measured before and after them."""
    devices = runs.axis().devices
    before = timing.rates(devices)
    seconds = timing.best_times(calls, repeats)
    after = timing.rates(devices)
    products = work.operations / seconds[0] / max(before.products, after.products)
    memory = work.traffic / seconds[0] / max(before.memory, after.memory)
    return Timed(seconds, products, memory)


PRODUCTS = "share of the machine's matrix products"


def speed(name: str, made: Call, done: float, unit: str, bar: float | None = None) -> Row:
    """A row of a call that does something `done` times, against the machine's matrix products."""
    call, work = made
    found = timed([call], work)
    row = found.row(name, done / found.seconds[0], unit)
    return compared(row, found.products, PRODUCTS, bar)
