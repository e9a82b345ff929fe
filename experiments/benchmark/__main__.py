"""How fast is the code, and how close is it to the limits of this machine?

Every speed is a ratio of two times measured in one run. Annealing and masked training are compared
with the machine's float32 matrix products, the convolution with `lax.conv` under `vmap`, and nets
with half of their units with the whole nets. If PyTorch is installed, annealing and training are
compared with the same work in PyTorch on the CPU (`torch_rival.py`), called in turns with ours.
Images are random bytes, since their values don't change the speed.

    python -m experiments.benchmark --json=benchmark.json --figure=benchmark.png

Two CPU cores take about twenty minutes: a third for `lax.conv`, a third for PyTorch. `--only`
measures some of the groups. The bars assume a machine without other load.

The time of a row has three parts: matrix products at the machine's rate, memory traffic at the
memory's rate, and the rest, called overhead. The largest part bounds the row. Memory traffic counts
only the bytes that every implementation must move: each step reads or writes its weights, masks,
gradients, moments and images once (`workloads.Work`). Products and traffic can add up to more than
1, since they may overlap and caches are faster than memory. Activations aren't counted, so their
traffic is part of the overhead.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments.benchmark import shrunk_nets, torch_rival
from experiments.benchmark.figure import draw_benchmark
from experiments.benchmark.measured import PRODUCTS, Row, compared, speed, timed
from experiments.benchmark.workloads import Call, anneal, convolve, evaluation, level, train
from experiments.harness import provenance, setup, timing
from experiments.harness.main import run_main
from experiments.harness.settings import choose
from jaxtickets import runs
from jaxtickets.io.errors import UserError


def machine() -> Iterator[Row]:
    """The machine's peak rates."""
    rates = timing.rates(runs.axis().devices)
    yield Row("float32 matrix products", rates.products / 1e9, "GFLOP/s")
    yield Row("memory, read and written in place", rates.memory / 1e9, "GB/s")


COUNTS = (1, 8, 32)


def many(n: int, word: str) -> str:
    """A number with its noun, in the plural if it is above 1."""
    return f"{n} {word}" + "s" * (n > 1)


def annealing() -> Iterator[Row]:
    """Annealing that evaluates the whole net for each energy."""
    for n in COUNTS:
        bar = 0.88 if n == 8 else None
        yield speed(f"annealing, {many(n, 'chain')}", anneal(n), 50 * n, "evaluations/s", bar)


def differences() -> Iterator[Row]:
    """Annealing with incremental energies, compared with the limit of evaluating whole nets.

    The limit is the rate at which the machine's matrix products alone could evaluate the net.
    """
    for size, counts, bar in ((10, (8,), 3.0), (100, COUNTS, 3.0), (1000, (8,), None)):
        for n in counts:
            made = anneal(n, size=size, by_difference=True)
            name = f"annealing by difference, swaps of {size:,}, {many(n, 'chain')}"
            row = speed(name, made, 50 * n, "evaluations/s")
            plain = evaluation(WEIGHTS).times(50 * n).operations
            assert row.products is not None
            ratio = row.products * plain / made[1].operations
            asked = bar if n == 8 else None
            yield compared(row, ratio, "times as fast as plain evaluation at its limit", asked)


WEIGHTS = 266_200
"""The number of weights of `lenet300_100` without biases."""


def cost() -> Iterator[Row]:
    """Whether the time of a chain's step depends on the number of chains; up to 15 % is allowed."""
    steps, times = 5, []
    for n in (8, 32, 128, 512):
        call, work = anneal(n, steps)
        found = timed([call], work, repeats=2)
        times.append(1000 * found.seconds[0] / steps / n)
        yield found.row(f"annealing, {n} chains at once", times[-1], "ms/chain-step")
    label = "a chain's step, among 8 to 512 chains"
    row = Row(label, max(times), "ms at most")
    yield compared(
        row, min(times) / max(times), "time of the quickest over that of the slowest", 1 / 1.15
    )


def training() -> Iterator[Row]:
    """Masked training."""
    for n in COUNTS:
        bar = 0.72 if n == 8 else None
        yield speed(f"masked training, batch 128, {many(n, 'run')}", train(n), n, "epochs/s", bar)


def levels() -> Iterator[Row]:
    """A level of iterative pruning, 5 replicates x 5 controls: batched, and one by one."""
    together = runs.axis()
    alone = runs.axis("map", 1, together.devices[:1])
    (batched, work), (one_by_one, _) = level(together), level(alone)
    found = timed([batched, one_by_one], work)
    fast, slow = found.seconds
    label = "a level, 25 runs of 200 steps, batch 60"
    row = found.row(label, fast, "s")
    yield compared(row, found.products, PRODUCTS)
    yield compared(row, slow / fast, "times as fast as one by one on one device", 1.7)


def convolution(name: str, batch: int) -> Row:
    """The library's convolution compared with `lax.conv` under `vmap`, 8 runs, called in turns."""
    call, work = convolve(name, "auto", "auto", batch, 2)
    other, _ = convolve(name, "lax", "vmap", batch, 2)
    found = timed([call, other], work, repeats=2)
    fast, slow = (seconds / 2 for seconds in found.seconds)
    row = found.row(f"{name}, a step of 8 runs, batch {batch}", 1000 * fast, "ms")
    return compared(row, slow / fast, "times as fast as lax.conv under vmap", 8.0)


def convolutions() -> Iterator[Row]:
    """Training steps of convolutional nets."""
    made = level(runs.axis(), 4, 4, "conv4", images=1000)
    label = "masked training of conv4 on 32x32, batch 60, 4 runs"
    yield speed(label, made, 4 * 4, "steps/s", 0.4)
    for name, batch in (("lenet5", 128), ("conv2", 8)):
        yield convolution(name, batch)


class Race(NamedTuple):
    """Work that is compared with PyTorch.

    Attributes:
      name: the name of the work.
      ours: makes our call.
      done, unit: how many units of work a call does, and the unit's name.
      bar: the ratio to reach; None: none.
      make: `make(runs, *arguments)` makes PyTorch's call.
      runs: the number of runs.
      arguments: the other arguments of `make`.
    """

    name: str
    ours: Callable[[], Call]
    done: int
    unit: str
    bar: float | None
    make: Callable[..., Callable[[], Any]]
    runs: int
    arguments: tuple


SMALL = partial(anneal, 8, size=100, by_difference=True)
BATCHES, LEVEL = "masked training, batch 128, 8 runs", "a level, 25 runs of 200 steps, batch 60"
MOMENTUM, ADAM = ("momentum", 60_000, 128, 468, False), ("adam", 55_000, 60, 200, True)
RACES = (
    Race("annealing, 8 chains, swaps of 2,000", partial(anneal, 8), 400, "evaluations/s",
         1.8, torch_rival.anneal, 8, (50, 2000)),
    Race("annealing, 8 chains, swaps of 100, ours by difference", SMALL, 400, "evaluations/s",
         8.0, torch_rival.anneal, 8, (50, 100)),
    Race("annealing, 8 chains, swaps of 100, both by difference", SMALL, 400, "evaluations/s",
         None, torch_rival.anneal, 8, (50, 100, True)),
    Race(BATCHES, partial(train, 8), 8, "epochs/s", 2.0, torch_rival.train, 8, MOMENTUM),
    Race(LEVEL, lambda: level(runs.axis()), 1, "levels/s", 2.5, torch_rival.train, 25, ADAM),
)  # fmt: skip


def race(one: Race) -> Iterator[Row]:
    """Our code compared with PyTorch, which uses the cores in two ways; the faster has the bar.

    The rows' values and bounds are those of our code.
    """
    cores = setup.cores()
    ways = {"a process a core": (cores, 1), "one process on all cores": (1, cores)}
    ours, work = one.ours()
    with ExitStack() as stack:
        theirs = [
            stack.enter_context(
                torch_rival.processes(count, threads, one.make, one.runs, *one.arguments)
            )
            for count, threads in ways.values()
        ]
        found = timed([ours, *theirs], work)
    fast, *slow = found.seconds
    row = found.row(one.name, one.done / fast, one.unit)
    for way, seconds in zip(ways, slow, strict=True):
        bar = one.bar if seconds == min(slow) else None
        yield compared(row, seconds / fast, f"times as fast as PyTorch, {way}", bar)


SHORT = ("--model=lenet5", "--preset=rewired", "--steps=10", "--seeds=1", "--epochs=1")


def compiled() -> Iterator[Row]:
    """The compile time of a short run by phase, with an empty cache and with a warm one."""
    with tempfile.TemporaryDirectory() as home:
        for name in ("cold", "warm"):
            out = Path(home) / name
            command = [sys.executable, "-m", "experiments.sa_search", *SHORT, f"--out={out}"]
            environment = {**os.environ, "XDG_CACHE_HOME": home}
            subprocess.run(command, env=environment, check=True, capture_output=True)
            (session,) = provenance.read(out)
            for phase, seconds in session["compile_seconds"].items():
                yield Row(f"compilation of sa_search, {phase}, {name} cache", seconds, "s")


def startup() -> Iterator[Row]:
    """The time from the command to the progress lines, with an empty cache and with a warm one.

    The first line appears when the chains start, the second with the first energies.
    """
    with tempfile.TemporaryDirectory() as home:
        for name, bar in (("cold", 15.0), ("warm", 4.0)):
            out = str(Path(home) / name)
            command = [sys.executable, "-m", "experiments.sa_search", "--preset=rewired"]
            command.append(f"--out={out}")
            first, second = timing.line_times(command, "search", 2, {"XDG_CACHE_HOME": home})
            row = Row(f"start to first progress line, {name} cache", first, "s")
            yield compared(row, bar / first, f"time allowed over time taken, {bar:g} s", 1.0)
            yield Row(f"start to first energies, {name} cache", second, "s")


MEMORY = (
    "from experiments.harness import setup; setup.configure(); "
    "from experiments.benchmark.workloads import *"
)


def memory() -> Iterator[Row]:
    """The peak memory of a process that anneals."""
    peaks: dict[int, float] = {}
    for chains in (1, 8, 32, 256):
        peaks[chains] = timing.peak_memory(f"{MEMORY}; anneal({chains}, 5)[0]()")
        row = Row(f"peak memory, annealing, {many(chains, 'chain')}", peaks[chains], "MiB")
        yield compared(row, peaks[chains] / peaks[1], "times one chain's")
    further = (peaks[256] - peaks[32]) / (256 - 32)
    yield Row("memory of a further chain, 32 to 256 chains", further, "MiB")


RIVAL = "torch"
"""The group of rows that needs PyTorch."""
GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "startup": startup,
    "compilation": compiled,
    "annealing": annealing,
    "differences": differences,
    "cost": cost,
    "training": training,
    "level": levels,
    "convolution": convolutions,
    "shrunk": shrunk_nets.rows,
    RIVAL: lambda: (row for one in RACES for row in race(one)),
    "memory": memory,
}


def wanted(only: Sequence[str], rival: bool) -> list[str]:
    """The groups to measure: those of `only`, or all that can be measured.

    Raises:
      UserError: a group is unknown, or needs PyTorch, which isn't installed.
    """
    for name in only:
        choose("group", name, GROUPS)
    if RIVAL in only and not rival:
        raise UserError("--only=torch: PyTorch is not installed (pip install torch)")
    return list(only) or [name for name in GROUPS if rival or name != RIVAL]


def place(flag: str) -> Path | None:
    """The file that a flag names; None if the flag is empty.

    Raises:
      UserError: the file's folder doesn't exist, the file can't be written or is a folder, or
        figures can't be saved in its format.
    """
    if not (word := flags.FLAGS[flag].value):
        return None
    file = Path(word)
    if not file.parent.is_dir():
        raise UserError(f"--{flag}={word}: there is no folder {file.parent}")
    if file.is_dir():
        raise UserError(f"--{flag}={word}: is a folder, name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"--{flag}={word}: can't be written")
    if flag == "figure" and file.suffix.lower() not in (kinds := _kinds()):
        raise UserError(f"--{flag}={word}: must end in {', '.join(kinds)}")
    return file


def _kinds() -> list[str]:
    """The file name endings in which figures can be saved."""
    from matplotlib.backend_bases import FigureCanvasBase

    return [f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes()]


def main() -> None:
    """Measures, prints the table, and writes it as JSON and as a figure if flags ask for them."""
    rival = torch_rival.installed()
    names = wanted(flags.FLAGS.only, rival)
    table, figure = place("json"), place("figure")
    setup.configure(flags.FLAGS.devices or None)
    print(setup.describe_devices())
    if not rival and not flags.FLAGS.only:
        print(f"PyTorch is not installed: the group {RIVAL} is left out")
    print(_line("", "", "ratio", "bar", "products", "memory", "bound by"))
    found = []
    for name, rows in (("machine", machine), *((name, GROUPS[name]) for name in names)):
        for row in rows():
            found.append({"group": name, **row._asdict()})
            _print(row)
    if table:
        table.write_text(json.dumps(found, indent=2))
    if figure:
        draw_benchmark(found, figure)


def _print(row: Row) -> None:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} {row.against}"
    bar = "" if row.bar is None else f"{row.bar:.3g} {'holds' if row.holds else 'MISSED'}"
    shares = ("" if x is None else f"{x:.2f}" for x in (row.products, row.memory))
    print(
        _line(row.name, f"{row.value:.4g} {row.unit}", ratio, bar, *shares, row.bound), flush=True
    )


def _line(*cells: str) -> str:
    widths = (54, 22, 58, 12, 10, 8, 0)
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


if __name__ == "__main__":
    flags.DEFINE_string("json", "", "file to which the table is written as JSON; empty: none")
    flags.DEFINE_string("figure", "", "file for a chart of the ratios, such as a .png; empty: none")
    flags.DEFINE_list("only", [], f"groups of rows to measure: {', '.join(GROUPS)}")
    flags.DEFINE_integer("devices", 0, "number of virtual CPU devices; 0: one per core")
    run_main(main)
