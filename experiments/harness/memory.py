"""Whether what is asked for can fit into memory at all: asked before work starts, and before JAX.

What a run takes is told from below, so that nothing is refused which might fit.
"""

import math
import os
from pathlib import Path

import jax

from jaxtickets.io.errors import UserError
from jaxtickets.types import PyTree

LEAST_COPIES = 3
"""Of its parameters, that a training holds at least: first, now, and at its early stop."""
MASKS = 3
"""Masks that a chain holds at least, a byte a bit: the current one, the best, and a proposal."""
WORD = 4
"""Bytes of what a tabu memory keeps of a mask."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's limit stands, in bytes or as a word."""
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def check_memory(asked: str, count: int, each: float, kind: str) -> None:
    """Refuses what clearly can't fit.

    Args:
      asked: the flags that ask for it, in words.
      count: how many are asked for.
      each: bytes that one takes at the least.
      kind: what they are, in the plural.

    Raises:
      UserError: together they take more than there is; the message says how many would fit.
    """
    free = available()
    if count * each > free:
        fits = f"give less, {int(free / each)} could fit" if free > each else "not one fits"
        raise UserError(
            f"{asked}: {count} {kind} take {words(count * each)} of memory at the least, there are "
            f"{words(free)}: {fits}"
        )


def training(params: PyTree) -> int:
    """Bytes that a training takes at the least; `params` are its parameters, or their shapes."""
    leaves = jax.tree.leaves(params)
    return LEAST_COPIES * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def available() -> float:
    """Bytes of memory that arrays of all processes may take; infinite where nobody says.

    Of the accelerators where there are some; else what the machine has free, swap included, within
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
    """All of the machine's memory, where the operating system says."""
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
    """Bytes in words, such as `4.3 GB`."""
    power = min(int(math.log10(max(size, 1)) / 3), len(UNITS) - 1)
    return f"{size / 1000**power:.3g} {UNITS[power]}"
