"""Rows of the benchmark: a measured value, its ratio to a reference, and what bounds it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.workloads import Call, Work
from experiments.harness import timing
from jaxtickets import runs


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      name: the name of the measurement.
      value: the measured value.
      unit: the value's unit.
      ratio: the ratio to a reference measured in the same run; None: there is none.
      against: the meaning of the ratio.
      bar: the ratio to reach; None: none.
      holds: whether the ratio reaches the bar; None without a bar.
      products: the fraction of the time that matrix products take at the machine's rate; None if
        they aren't counted.
      memory: the fraction of the time that memory traffic takes at the machine's rate; None if it
        isn't counted.
      bound: the part that takes most of the time, see `bound_by`.
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
    """The part that takes most of the time: products, memory, or the rest, which is overhead."""
    shares = {"matrix products": products, "memory": memory, "overhead": 1 - products - memory}
    return max(shares, key=lambda name: shares[name])


def compared(row: Row, ratio: float, against: str, bar: float | None = None) -> Row:
    """The row with its ratio and whether it reaches the bar."""
    holds = None if bar is None else ratio >= bar
    return row._replace(ratio=ratio, against=against, bar=bar, holds=holds)


class Timed(NamedTuple):
    """The times of several calls, and the parts of the first call's time.

    Attributes:
      seconds: the time of each call.
      products, memory: fractions of the first call's time, see `Row`.
    """

    seconds: list[float]
    products: float
    memory: float

    def row(self, name: str, value: float, unit: str) -> Row:
        """A row with the parts and the bound of the first call."""
        bound = bound_by(self.products, self.memory)
        shares = {"products": self.products, "memory": self.memory, "bound": bound}
        return Row(name, value, unit, **shares)  # type: ignore[arg-type]


def timed(calls: Sequence[Callable[[], Any]], work: Work, repeats: int = 3) -> Timed:
    """Times calls in turns. The machine's rates are measured before and after them."""
    devices = runs.axis().devices
    before = timing.rates(devices)
    seconds = timing.best_times(calls, repeats)
    after = timing.rates(devices)
    products = work.operations / seconds[0] / max(before.products, after.products)
    memory = work.traffic / seconds[0] / max(before.memory, after.memory)
    return Timed(seconds, products, memory)


PRODUCTS = "share of the machine's matrix products"


def speed(name: str, made: Call, done: float, unit: str, bar: float | None = None) -> Row:
    """The row of a call that does `done` units of work; its ratio is the share of products."""
    call, work = made
    found = timed([call], work)
    row = found.row(name, done / found.seconds[0], unit)
    return compared(row, found.products, PRODUCTS, bar)


def many(n: int, word: str) -> str:
    """A number with its noun, in the plural if it is above 1."""
    return f"{n} {word}" + "s" * (n > 1)
