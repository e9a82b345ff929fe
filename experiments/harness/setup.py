"""JAX's setup for an experiment. It must be called before JAX makes its first array."""

import os
import platform
from pathlib import Path

import jax
from absl import logging

from experiments.harness import compilation, event_files
from experiments.harness.flags import PRECISIONS, RunSettings
from jaxtickets.io import processes
from jaxtickets.io.errors import UserError


def configure(devices: int | None = None, cache: bool = True) -> None:
    """Sets virtual CPU devices, a persistent compilation cache, and warnings as the log level.

    On a machine with a GPU the CPU devices exist but aren't used.

    Args:
      devices: how many virtual CPU devices. None: one for each usable core, unless JAX is already
        configured with a number.
      cache: whether to keep compiled programs in the user's cache folder between processes.

    Raises:
      UserError: `devices` is less than one.
      RuntimeError: JAX is already initialised with another number of devices.
    """
    logging.set_verbosity(logging.WARNING)
    if devices is not None and devices < 1:
        raise UserError(f"--devices={devices}: must be 1 or more")
    told: int = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
    if devices is not None or told < 0:
        jax.config.update("jax_num_cpu_devices", devices or cores())
    folder = cache_folder() if cache else None
    if folder is not None:
        compilation.keep_in(folder)


def start(place: RunSettings, precision: str = "float32") -> None:
    """Configures JAX for a run, and connects to the other processes of a distributed run.

    Args:
      place: where and how the run is executed.
      precision: one of `flags.PRECISIONS`, for matrix products and convolutions. For bfloat16, the
        problem must be built with it too.

    Raises:
      UserError: the devices lack that precision; see also `configure`, `processes.start` and
        `event_files.check`.
    """
    event_files.check(place.tensorboard)
    configure(place.devices or None)
    named = (place.coordinator, place.num_processes, place.process_id) != ("", 0, -1)
    if place.distributed or named:
        processes.start(place.coordinator, place.num_processes, place.process_id)
    if jax.devices()[0].platform != "cpu":
        jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])
    elif PRECISIONS[precision] != "float32":
        raise UserError(f"--precision={precision}: CPUs have float32 and bfloat16 only")


def cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_folder() -> Path | None:
    """Makes and returns `$XDG_CACHE_HOME/jaxtickets/xla`; None if it isn't writable.

    Without the variable the base is `~/.cache`.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification says to ignore relative paths
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
    """The processor's name according to the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
