"""What new processes need: time to compile, time until the first progress line, and memory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments.benchmark.measured import Row, compared, many
from experiments.harness import provenance, timing

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
