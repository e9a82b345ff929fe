"""How fast is it, and how near to what this machine can do?

Every speed is a ratio measured in one run: annealing and masked training against the machine's own
float32 matrix-product rate, the convolution against `lax.conv` under `vmap`. Images are random
bytes, since values don't change the speed.

    python -m experiments.benchmark --json=benchmark.json

Two CPU cores take about ten minutes, most of it `lax.conv`; `--only` takes some of the rows. The
bars are for a machine that does nothing else.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from absl import flags

from experiments.workloads import anneal, convolve, level, train
from jaxtickets import runs
from jaxtickets.drivers import measure
from jaxtickets.io import setup
from jaxtickets.io.errors import choose, run_main


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      name: what was measured.
      value: how much.
      unit: of what.
      ratio: against what the row's name says, in the same run.
      bar: what the ratio is meant to reach, None if nothing.
      holds: whether it does.
    """

    name: str
    value: float
    unit: str
    ratio: float | None
    bar: float | None
    holds: bool | None


def speed(
    name: str,
    make: Callable,
    count: int,
    unit: str,
    each: float,
    bar: float | None,
    against: str = "share of matrix products",
) -> Row:
    """A row of `make(count)`, against the matrix products measured before and after it."""
    call, operations = make(count)
    devices = runs.axis().devices
    before = measure.matrix_product_rate(devices)
    seconds = measure.best_time(call)
    limit = max(before, measure.matrix_product_rate(devices))
    ratio = operations / seconds / limit
    asked = bar if count == 8 else None
    held = None if asked is None else ratio >= asked
    return Row(
        f"{name}, {count}: {against}",
        each * count / seconds,
        unit,
        ratio,
        asked,
        held,
    )


def convolution(name: str, batch: int) -> Row:
    """A row of the net's own convolution against `lax.conv` under `vmap`, 8 runs."""
    slow = measure.best_time(convolve(name, "lax", "vmap", batch, 2), repeats=1) / 2
    fast = measure.best_time(convolve(name, "auto", "auto", batch, 2)) / 2
    label = f"{name}, forward and backward, batch {batch}, 8 runs: lax.conv under vmap over ours"
    return Row(label, 1000 * fast, "ms a step", slow / fast, 8.0, slow / fast >= 8)


def levels() -> Iterator[Row]:
    """A level of iterative pruning, 5 replicates x 5 treatments: batched, and one by one."""
    together = runs.axis()
    alone = runs.axis("map", 1, together.devices[:1])
    times = {}
    for name, axis in (("one by one on one device", alone), ("batched", together)):
        call, operations = level(axis)
        rate = measure.matrix_product_rate(together.devices)
        times[name] = measure.best_time(call)
        share = operations / times[name] / rate
        label = f"a level, 25 runs of 200 steps, {name}: share of matrix products"
        yield Row(label, times[name], "s", share, None, None)
    slow, fast = times.values()
    label = "a level, 25 runs: one by one on one device over batched"
    yield Row(label, fast, "s", slow / fast, 1.7, slow / fast >= 1.7)


def startup() -> Iterator[Row]:
    """From the command to lines of progress, with an empty cache and with a warm one.

    The first line comes as the chains begin, the second with the first energies.
    """
    with tempfile.TemporaryDirectory() as home:
        for name, bar in (("cold", 15.0), ("warm", 6.0)):
            out = str(Path(home) / name)
            command = [sys.executable, "-m", "experiments.sa_search", f"--out={out}"]
            first, second = measure.line_times(command, "search", 2, {"XDG_CACHE_HOME": home})
            label = f"start to first progress line, {name} cache: share of the bar"
            yield Row(label, first, "s", first / bar, 1.0, first <= bar)
            yield Row(f"start to first energies, {name} cache", second, "s", None, None, None)


MEMORY = "from jaxtickets.io import setup; setup.configure(); from experiments.workloads import *"


def memory() -> Iterator[Row]:
    """Peak memory of a process that anneals."""
    one = None
    for chains in (1, 8, 32):
        code = f"{MEMORY}; anneal({chains}, 5)[0]()"
        peak = measure.peak_memory(code)
        one = one or peak
        label = f"peak memory, annealing, chains {chains}: against one chain"
        yield Row(label, peak, "MiB", peak / one, None, None)


COUNTS = (1, 8, 32)


def differences() -> Iterator[Row]:
    """Annealing whose energies are by difference, against the limit of evaluating whole nets.

    That limit is the rate at which matrix products alone would evaluate the net.
    """
    for size, bar in ((10, 3.0), (100, 3.0), (1000, None)):
        make = partial(anneal, size=size, by_difference=True)
        name, against = f"by difference, swaps of {size}, chains", "over plain at its limit"
        for count in COUNTS if size == 100 else COUNTS[1:2]:
            yield speed(name, make, count, "evaluations/s", 50, bar, against)


GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "startup": startup,
    "annealing": lambda: (
        speed("annealing, chains", anneal, n, "evaluations/s", 50, 0.8) for n in COUNTS
    ),
    "differences": differences,
    "training": lambda: (
        speed("masked training, runs", train, n, "epochs/s", 1, 0.6) for n in COUNTS
    ),
    "level": levels,
    "convolution": lambda: (convolution(*a) for a in (("lenet5", 128), ("conv2", 8))),
    "memory": memory,
}


def main() -> None:
    """Measures, prints the table, and writes it where `--json` says."""
    names = flags.FLAGS.only or list(GROUPS)
    for name in names:
        choose("group", name, GROUPS)
    setup.configure(flags.FLAGS.devices or None)
    print(setup.describe_devices())
    rate = measure.matrix_product_rate(runs.axis().devices)
    found = [Row("float32 matrix products", rate / 1e9, "GFLOP/s", None, None, None)]
    _print(found[0])
    for name in names:
        for row in GROUPS[name]():
            found.append(row)
            _print(row)
    if flags.FLAGS.json:
        Path(flags.FLAGS.json).write_text(json.dumps([row._asdict() for row in found], indent=2))


def _print(row: Row) -> None:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    bar = "" if row.bar is None else f"bar {row.bar:g}: {'holds' if row.holds else 'MISSED'}"
    print(f"{row.name:<84}{row.value:>9.4g} {row.unit:<14}{ratio:>6}  {bar}", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("json", "", "a file for the table as JSON")
    flags.DEFINE_list("only", [], f"groups of rows to measure: {', '.join(GROUPS)}")
    flags.DEFINE_integer("devices", 0, "virtual CPU devices; 0: one a core")
    run_main(main)
