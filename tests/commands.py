"""Experiments as processes: run, killed and resumed, and asked for what can't be."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
GALLERIES = ("criterion_comparison", "mask_similarity", "orthogonality", "trainability")
ON_TWO_DEVICES = ("sa_search", "ticket_grid")
CONVOLUTIONAL = ("filter_search", "structured_pruning", "slimming", "prune_retrain", "early_bird")
"""Experiments whose smoke runs compute for longer than they compile: at level 1 of XLA they take
three quarters to nine tenths of the time that they take at level 0."""
WITH_STORE = (
    *(*GALLERIES, "supermask", "prune_retrain", "structured_pruning", "filter_search", "slimming"),
    *("energy_study", "sa_frontier", "learned_sparsity", "classification"),
    *("neuron_fusion", "strong_tickets", "compression"),
)


def command(experiment: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"experiments.{experiment}", *arguments]


def run(words: Sequence[str], cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, env=environment(cache, words), capture_output=True, text=True
    )


QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
"""Compiles in half of the time, to slower code that rounds otherwise. A program in one part has
half of the mapped regions of memory."""
SOONER = f"--xla_cpu_use_fusion_emitters=false {QUICK}"
"""Compiles sooner yet; JAX 0.11 has no such flag as the first."""


def environment(cache: Path, words: Sequence[str] = ()) -> dict[str, str]:
    """One device, since the tests' processes share the cores; `--devices` asks for more."""
    flags = os.environ.get("XLA_FLAGS", "")
    if {f"experiments.{name}" for name in CONVOLUTIONAL} & {*words}:
        flags = flags.replace("optimization_level=0", "optimization_level=1")
    more = {"XLA_FLAGS": flags, "XDG_CACHE_HOME": str(cache), "JAX_NUM_CPU_DEVICES": "1"}
    return os.environ | more


def summary(folder: Path) -> list[dict[str, str]]:
    """The summary's rows without the times, which are never the same."""
    rows = list(csv.DictReader((folder / "summary.csv").open()))
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def kill_and_resume(
    words: Sequence[str], folder: Path, phases: Sequence[str], cache: Path, *others: str
) -> None:
    """Kills the run once a phase has its first checkpoint, resumes it, and so on to its end.

    `phases` are those in which it is killed, in their order; `others` are arguments of the last
    session alone.
    """
    words = [*words, "--checkpoint_seconds=0"]
    for i, phase in enumerate(phases):
        process = subprocess.Popen(
            [*words, *["--resume"][:i]],
            cwd=ROOT,
            env=environment(cache, words),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wanted = folder / "checkpoints" / phase / "00000001" / "manifest.json"
        deadline = time.monotonic() + 240
        while not wanted.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert wanted.exists()
    done = run([*words, "--resume", *others], cache)
    assert done.returncode == 0, done.stderr


CHILDREN = """
import functools, gc, importlib, json, os, runpy, sys, traceback
from jaxtickets import data
SOON = "jaxlib.mlir.dialects.builtin", "jaxlib.mlir.dialects.mhlo", "chex", "scipy.sparse.csgraph"
cases = json.loads(sys.argv[1])
data.load = functools.cache(data.load)
data.load("mnist5k", None, False)  # NumPy alone: children can't inherit a JAX that is in use
for module in SOON:  # what libraries import at the first use, so that each child would do so
    importlib.import_module(module)
for module in {f"experiments.{case[0]}.__main__" for case in cases}:
    importlib.import_module(module)  # and all that it needs: once, and in each child by the fork
    del sys.modules[module]
gc.freeze()  # no child looks through what it has inherited
for experiment, *arguments in cases:
    module = "experiments." + experiment
    sys.stdout.flush()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 1), os.dup2(write, 2)
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code
        except BaseException:
            status = traceback.print_exc() or 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status or 0)  # at once: there is nothing to clean up
    os.close(write)
    said = open(read).read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([status, said]))
"""


ACCEPTED = 77
ACCEPT_ALONE = f"""
import io, sys
import numpy as np
from PIL import Image
from experiments.harness import records, setup
from jaxtickets.data import photographs, sources, tfds
from jaxtickets.data.examples import Encoded, Examples, StreamedDataset
from jaxtickets.io import processes
from jaxtickets.types import Dataset, Split

def load(source, data_dir, prepare):
    sizes = source.train, source.validation, source.test
    labels = [np.arange(n, dtype="i4") % source.classes for n in sizes]
    parts = [Split(np.zeros((len(of), *source.shape), "u1"), of) for of in labels]
    return Dataset(source.name, *parts, source.mean, source.std, source.classes)

black = io.BytesIO()
Image.new("RGB", (8, 8)).save(black, "JPEG")

def load_photographs(name, data_dir):
    source = sources.STREAMED.get(name, sources.IMAGENET)
    sizes, one = (source.train, source.validation, source.test), Encoded(black.getvalue(), 0)
    parts = [Examples(name, n, source.classes, lambda i: one, "") for n in sizes]
    return StreamedDataset(name, *parts, source.mean, source.std, source.classes)

tfds.load = load
photographs.load = load_photographs
processes.start = lambda *_: None
records.open_run_of_flags = setup.describe_devices = lambda *_, **__: sys.exit({ACCEPTED})
"""
"""Ends an experiment with this status once it has made all its checks, where its work would begin.

Data sets of TFDS and photographs are black images in their number, and no process is waited for."""


def answers(cases: list[list[str]], cache: Path, first: str = "") -> list[tuple[int, str]]:
    """Exit status and output for each case, which is an experiment and its arguments.

    `first` is run before all.
    """
    done = run([sys.executable, "-c", first + CHILDREN, json.dumps(cases)], cache)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
