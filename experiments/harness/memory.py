"""Refuses runs that can't fit into memory, before any work starts.

The memory of a run is estimated from below, so no run is refused that might fit.
"""

import math
import os
from pathlib import Path

import jax

from jaxtickets.io.errors import UserError
from jaxtickets.types import PyTree

LEAST_COPIES = 3
"""The copies of its parameters that a training holds at least: initial, current, early stop."""
MASKS = 3
"""The masks that a chain holds at least, a byte per bit: current, best and proposal."""
WORD = 4
"""The bytes that a tabu memory keeps of each mask."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""The files that hold a container's memory limit, in bytes or as a word."""
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def check_memory(asked: str, count: int, each: float, kind: str) -> None:
    """Refuses a number of things that clearly can't fit into memory.

    Args:
      asked: the flags that ask for them, such as `--seeds=9`.
      count: how many are asked for.
      each: the bytes that one takes at least.
      kind: what they are, in the plural, such as `trainings`.

    Raises:
      UserError: together they take more than is available. The message says how many could fit.
    """
    free = available()
    if count * each > free:
        fits = f"at most {int(free / each)} can fit" if free > each else "not even one fits"
        raise UserError(
            f"{asked}: {count} {kind} take at least {words(count * each)} of memory, but "
            f"{words(free)} are available: {fits}"
        )


def training(params: PyTree) -> int:
    """The bytes that a training takes at least. `params` are its parameters, or their shapes."""
    leaves = jax.tree.leaves(params)
    return LEAST_COPIES * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def available() -> float:
    """The bytes of memory available to the arrays of all processes; infinite if unknown.

    With accelerators it is their memory. Else it is the machine's free memory, swap included, up to
    the container's limit.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return jax.process_count() * _host()
    stats = [device.memory_stats() for device in jax.local_devices()]
    sizes = [of["bytes_limit"] if of and "bytes_limit" in of else math.inf for of in stats]
    return jax.process_count() * sum(sizes)


def _host() -> float:
    limits = [_number(Path(path)) for path in LIMITS]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        free = 1024.0 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
    except (OSError, ValueError, KeyError, IndexError):
        free = _physical()
    return min(free, *limits)


def _physical() -> float:
    """The machine's total memory; infinite if the operating system doesn't say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return math.inf


def _number(path: Path) -> float:
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return math.inf


def words(size: float) -> str:
    """A number of bytes with its unit, such as `4.3 GB`."""
    power = min(int(math.log10(max(size, 1)) / 3), len(UNITS) - 1)
    return f"{size / 1000**power:.3g} {UNITS[power]}"
