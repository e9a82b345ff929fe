"""Compiled programs that are kept between processes, and shared between the devices of a CPU."""

from pathlib import Path
from typing import Any

import jax
from jax._src import cache_key


def keep_in(folder: Path) -> None:
    """Keeps every program that JAX compiles, unless JAX has been told already where to.

    On CPUs JAX takes programs that differ in nothing but their device for two, and compiles each;
    on GPUs it doesn't. The machine code is the same, and an executable that is read is placed on
    the device that it is wanted for. So devices are left out of what programs are known by.
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
