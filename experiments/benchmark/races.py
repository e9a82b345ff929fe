"""Our code beside the same work in PyTorch on the CPU (`torch_rival.py`), called in turns."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from experiments.benchmark import torch_rival
from experiments.benchmark.measured import Row, compared, timed
from experiments.benchmark.workloads import Call, anneal, level, train
from experiments.harness import setup
from jaxtickets import runs

Rival = Callable[[int], Callable[[], Any]]
"""`rival(runs)` makes PyTorch's call."""


def rows() -> Iterator[Row]:
    """Annealing and training compared with PyTorch."""
    swaps, unit = "annealing, 8 chains, swaps of", "evaluations/s"
    few = anneal(8, size=100, by_difference=True)

    def rival(size: int, by_difference: bool = False) -> Rival:
        return partial(torch_rival.anneal, steps=50, size=size, by_difference=by_difference)

    yield from race(f"{swaps} 2,000", anneal(8), 400, unit, rival(2000), 8, 1.8)
    yield from race(f"{swaps} 100, ours by difference", few, 400, unit, rival(100), 8, 8.0)
    yield from race(f"{swaps} 100, both by difference", few, 400, unit, rival(100, True), 8)
    momentum = partial(
        torch_rival.train, name="momentum", images=60_000, batch=128, steps=468, bias=False
    )
    name = "masked training, batch 128, 8 runs"
    yield from race(name, train(8), 8, "epochs/s", momentum, 8, 2.0)
    adam = partial(torch_rival.train, name="adam", images=55_000, batch=60, steps=200, bias=True)
    name = "a level, 25 runs of 200 steps, batch 60"
    yield from race(name, level(runs.axis()), 1, "levels/s", adam, 25, 2.5)


def race(
    name: str, made: Call, done: int, unit: str, rival: Rival, count: int, bar: float | None = None
) -> Iterator[Row]:
    """Our code compared with PyTorch, which uses the cores in two ways; the faster has the bar.

    The rows' values and bounds are those of our code.

    Args:
      name: the name of the work.
      made: our call, and its work.
      done, unit: how many units of work a call does, and the unit's name.
      rival: makes PyTorch's call.
      count: the number of runs or chains.
      bar: the ratio to reach; None: none.
    """
    cores = setup.cores()
    ways = {"a process a core": (cores, 1), "one process on all cores": (1, cores)}
    ours, work = made
    with ExitStack() as stack:
        theirs = [
            stack.enter_context(torch_rival.processes(processes, threads, rival, count))
            for processes, threads in ways.values()
        ]
        found = timed([ours, *theirs], work)
    fast, *slow = found.seconds
    row = found.row(name, done / fast, unit)
    for way, seconds in zip(ways, slow, strict=True):
        best = bar if seconds == min(slow) else None
        yield compared(row, seconds / fast, f"times as fast as PyTorch, {way}", best)
