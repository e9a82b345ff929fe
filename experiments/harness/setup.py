"""Sets JAX up for an experiment; called first, before JAX makes its first array."""

import os
import platform
from pathlib import Path

import jax
from absl import logging

from experiments.harness import compilation
from experiments.harness.flags import PRECISIONS, RunSettings
from jaxtickets.io import processes
from jaxtickets.io.errors import UserError


def configure(devices: int | None = None, cache: bool = True) -> None:
    """Virtual CPU devices, a compilation cache, and no chatter in the log.

    GPUs aren't touched: beside one, the CPU devices are merely there.

    Args:
      devices: virtual CPU devices; one a usable core if None, unless JAX has been told already.
      cache: keep compiled programs in the user's cache folder between processes.

    Raises:
      UserError: `devices` is less than one.
      RuntimeError: JAX has been used already, with another number of devices.
    """
    logging.set_verbosity(logging.WARNING)
    if devices is not None and devices < 1:
        raise UserError(f"--devices={devices}: there must be one at least")
    told: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if devices is not None or told < 0:
        jax.config.update("jax_num_cpu_devices", devices or cores())
    folder = cache_folder() if cache else None
    if folder is not None:
        compilation.keep_in(folder)


def start(place: RunSettings, precision: str = "float32") -> None:
    """`configure` for a run, and the other processes that it shares its work with.

    Args:
      place: where it runs.
      precision: of matrix products and convolutions, one of `flags.PRECISIONS`.

    Raises:
      UserError: the devices have no such precision; see `configure` and `processes.start`.
    """
    configure(place.devices or None)
    named = (place.coordinator, place.num_processes, place.process_id) != ("", 0, -1)
    if place.distributed or named:
        processes.start(place.coordinator, place.num_processes, place.process_id)
    if jax.devices()[0].platform != "cpu":
        jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])
    elif PRECISIONS[precision] != "float32":
        raise UserError(f"--precision={precision}: CPUs compute in float32, leave it out")


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/jaxtickets/xla` (`~/.cache` by default), made; None if not writable."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        base = os.path.expanduser(os.path.join("~", ".cache"))
    folder = Path(base) / "jaxtickets" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if folder.is_absolute() and os.access(folder, os.W_OK) else None


def describe_devices() -> str:
    """The devices in words, such as `2 x cpu (AMD EPYC)` or `1 x NVIDIA H200`."""
    devices = jax.devices()
    words = f"{len(devices)} x {devices[0].device_kind}"
    words = f"{words} ({cpu_model()})" if devices[0].platform == "cpu" else words
    return f"{words} of {jax.process_count()} processes" if processes.several() else words


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
