"""Measures the machine's peak rates, the time of calls, and the time and memory of processes."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SIZE, PRODUCTS = 2048, 10
LENGTH, PASSES = 2**25, 8


class Rates(NamedTuple):
    """The machine's peak rates, with all devices working at once.

    Attributes:
      products: float32 operations per second, from `matrix_product_rate`.
      memory: bytes per second, from `memory_rate`.
    """

    products: float
    memory: float


def best_time(call: Callable[[], Any], repeats: int = 3) -> float:
    """The seconds of the fastest of `repeats` calls, after a first call that isn't timed."""
    return best_times([call], repeats)[0]


def best_times(calls: Sequence[Callable[[], Any]], repeats: int = 3) -> list[float]:
    """The `best_time` of each function; the functions are called in turns."""
    return [min(seen) for seen in times_in_turns(calls, repeats)]


def median_times(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """The median seconds of each function, see `times_in_turns`."""
    return [statistics.median(seen) for seen in times_in_turns(calls, repeats)]


def times_in_turns(calls: Sequence[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """The seconds of `repeats` calls of each function; the functions are called in turns.

    A first call of each isn't timed, since it compiles. Each call is timed until its results are
    ready.
    """
    for call in calls:
        jax.block_until_ready(call())
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seen in zip(calls, times, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(call())
            seen.append(time.perf_counter() - started)
    return times


def rates(devices: Sequence[jax.Device]) -> Rates:
    """Measures the machine's peak rates."""
    return Rates(matrix_product_rate(devices), memory_rate(devices))


def matrix_product_rate(devices: Sequence[jax.Device]) -> float:
    """Float32 operations per second in products of 2048 x 2048 matrices, on all devices at once."""

    def products(a: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: ((c @ a) * 1e-3, None), a, None, length=PRODUCTS)[0]

    run = jax.jit(products)
    matrices = [jax.device_put(jnp.ones((SIZE, SIZE)), device) for device in devices]
    seconds = best_time(lambda: [run(matrix) for matrix in matrices])
    return len(devices) * PRODUCTS * 2 * SIZE**3 / seconds


def memory_rate(devices: Sequence[jax.Device]) -> float:
    """Bytes per second that are read and written in place, on all devices at once.

    Each device reads 128 MiB, which is more than caches hold, and writes every number back, as an
    optimiser does with its moments. A byte counts once when it is read and once when it is written.
    Writing to another array would be slower, since the CPU reads that array before writing it.
    """

    def passes(a: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (-c, None), a, None, length=PASSES)[0]

    run = jax.jit(
        passes, donate_argnums=0
    )  # in place, so that no time is spent on allocating memory
    arrays = [jax.device_put(jnp.ones(LENGTH), device) for device in devices]

    def call() -> list[jax.Array]:
        arrays[:] = [run(array) for array in arrays]
        return arrays

    return len(devices) * PASSES * 2 * arrays[0].nbytes / best_time(call)


def line_times(
    command: Sequence[str], word: str, lines: int, environment: dict[str, str]
) -> list[float]:
    """The seconds from the start of a process to its first lines on stderr that begin with `word`.

    The process is killed after the last of these lines.

    Args:
      command: the process's command line.
      word: the beginning of the lines.
      lines: how many of these lines are timed.
      environment: variables that are added to the environment.

    Raises:
      RuntimeError: the process ended with fewer lines.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stderr is not None
    seen, times = [], []
    try:
        for text in process.stderr:
            seen.append(text)
            if text.startswith(word):
                times.append(time.perf_counter() - started)
            if len(times) == lines:
                return times
    finally:
        process.kill()
        process.wait()
    raise RuntimeError(f"{' '.join(command)} printed too few lines: {''.join(seen)[-500:]}")


PEAK = """
import pathlib, resource
status = pathlib.Path("/proc/self/status")  # getrusage counts the parent's memory at the fork too
if status.exists():
    print(next(line.split()[1] for line in status.open() if line.startswith("VmHWM")))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(code: str) -> float:
    """The peak resident memory, in MiB, of a new Python process that executes `code`.

    Raises:
      RuntimeError: the process failed.
    """
    words = [sys.executable, "-c", f"{code}\n{PEAK}"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return int(done.stdout.split()[-1]) / 1024
