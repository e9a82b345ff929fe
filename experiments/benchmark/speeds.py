"""The speeds of annealing, training and convolutions beside the machine's own rates."""

from collections.abc import Iterator

from experiments.benchmark.measured import PRODUCTS, Row, compared, many, speed, timed
from experiments.benchmark.workloads import anneal, convolve, evaluation, level, train
from experiments.harness import timing
from jaxtickets import runs


def machine() -> Iterator[Row]:
    """The machine's peak rates."""
    rates = timing.rates(runs.axis().devices)
    yield Row("float32 matrix products", rates.products / 1e9, "GFLOP/s")
    yield Row("memory, read and written in place", rates.memory / 1e9, "GB/s")


COUNTS = (1, 8, 32)


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
