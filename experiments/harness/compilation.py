"""The compilation cache, which CPU devices and processes share, and the compile time by phase."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax._src import cache_key


def keep_in(folder: Path) -> None:
    """Keeps every program that JAX compiles in `folder`, or in the folder that JAX already has.

    JAX's cache key contains the device on CPUs (not on GPUs), so the same program is compiled once
    for each device. The machine code is the same, and JAX loads a cached executable onto the device
    that asks for it. So the device is removed from the key.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    cache_key._hash_serialized_compile_options = _without_device


_hash_options = cache_key._hash_serialized_compile_options


def _without_device(hash_: Any, options: Any, strip_device_assignment: bool = False) -> None:
    places = options.device_assignment
    alone = places is not None and places.replica_count() == places.computation_count() == 1
    _hash_options(hash_, options, strip_device_assignment or alone)


# --- compile time --------------------------------------------------------------------------------

ELSEWHERE = "elsewhere"
"""The name for compilation outside of all phases."""
STARTED, ENDED = "compile_requests_use_cache", "backend_compile_duration"
"""The ends of JAX's event names. JAX reports a start only if its cache is on."""


@contextmanager
def watched(phase: str, show: Callable[[bool], None]) -> Iterator[None]:
    """Counts the compile time within the context as the phase's.

    Args:
      phase: the phase's name.
      show: called with True when a compilation starts, and with False when one ends.
    """

    def started(event: str, **_: Any) -> None:
        if event.endswith(STARTED):
            show(True)

    def ended(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith(ENDED):
            _of_phases[phase] += duration_secs
            show(False)

    jax.monitoring.register_event_listener(started)
    jax.monitoring.register_event_duration_secs_listener(ended)
    _open.append(phase)
    try:
        yield
    finally:
        _open.remove(phase)
        jax.monitoring.unregister_event_listener(started)
        jax.monitoring.unregister_event_duration_listener(ended)


def watch_elsewhere(show: Callable[[bool], None]) -> None:
    """From now on `show` is called as in `watched`, for compilation outside of all phases."""
    _elsewhere[:] = [show]


def seconds() -> dict[str, float]:
    """Phase -> seconds that this process spent on compiling or on reading the cache.

    Devices that compile at the same time add up. Time outside of all phases is `ELSEWHERE`.
    """
    rest = _in_all["seconds"] - sum(_of_phases.values())
    return {phase: round(spent, 3) for phase, spent in {**_of_phases, ELSEWHERE: rest}.items()}


_of_phases: defaultdict[str, float] = defaultdict(float)
_in_all: defaultdict[str, float] = defaultdict(float)
_open: list[str] = []
_elsewhere: list[Callable[[bool], None]] = []


def _start(event: str, **_: Any) -> None:
    if event.endswith(STARTED):
        _tell_elsewhere(True)


def _count(event: str, duration_secs: float, **_: Any) -> None:
    if event.endswith(ENDED):
        _in_all["seconds"] += duration_secs
        _tell_elsewhere(False)


def _tell_elsewhere(now: bool) -> None:
    for show in () if _open else _elsewhere:
        show(now)


jax.monitoring.register_event_listener(_start)
jax.monitoring.register_event_duration_secs_listener(_count)
