"""What all tests share: several CPU devices, and a tiny net with its wiring and its evidence."""

import collections
import ctypes
import gc
import itertools
import os
import pathlib
import pickle
import re
import tempfile

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

from experiments.harness import compilation, main
from jaxtickets import losses, masks
from jaxtickets.criteria import Evidence
from jaxtickets.types import Feed, Model, Split, Units

# XLA_FLAGS= from outside has all compiled as users have it, the experiments too
FLAGS = commands.SOONER if jax.__version_info__ < (0, 11) else commands.QUICK
os.environ.setdefault("XLA_FLAGS", FLAGS)
CPU_DEVICES = 4
if jax.config.jax_num_cpu_devices < 0:  # JAX has not been told from outside
    jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(*main.COLLECT_AFTER)
# programs that several tests trace are compiled once, in whichever process; half of a test's time
# goes into programs of a single operation, which others need too
CACHE = tempfile.TemporaryDirectory()
compilation.keep_in(pathlib.Path(os.environ.setdefault("JAXTICKETS_TEST_CACHE", CACHE.name)))


class ByFileAndRun(LoadFileScheduling):
    """A file's tests share a process, but of two files parts are groups of their own.

    Of `test_experiments.py` these are the tests of a run, of `test_dynamic.py` those of a promise,
    or of all promises that look at the same trajectories, which are computed once. Each file would
    keep one process busy for minutes. The galleries, which wait for each other, are one group.
    """

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        if file.endswith("test_dynamic.py"):
            promise, _, case = test.partition("[")
            return f"{file}::{'trajectories' if '-' in case else promise}"
        run = re.search(r"\[(\w+)\]$", test) if file.endswith("test_experiments.py") else None
        if run and run[1] in commands.GALLERIES:
            return f"{file}::galleries"
        return f"{file}::{run[1]}" if run else file


def pytest_collection_modifyitems(items):
    """Files that start experiments come first, then those of many tests: what is long ends early.

    xdist deals out the groups in this order.
    """
    tests = collections.Counter(item.path for item in items)
    starting = {item.path for item in items if "cache" in item.fixturenames}
    items.sort(key=lambda item: (item.path not in starting, -tests[item.path], item.path))


def pytest_xdist_make_scheduler(config, log):
    return ByFileAndRun(config, log) if config.getoption("dist") == "loadfile" else None


MOST_MAPS = 40_000
"""Mapped regions of memory, of which Linux allows a process 65,530. A training has some
hundred, and a process that can map no more dies."""
TESTS_RUN = itertools.count()


MOST_BYTES = 3 * 2**30
"""The memory that a process of the tests may keep, arrays and programs."""


STAYED = [0.0]
"""The share that was in use after the last clearing, which no other one would free."""


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drops what is kept before it is too much: first what none can call, then all programs."""
    yield
    if next(TESTS_RUN) % 25 == 0 and in_use() > max(1, 1.2 * STAYED[0]):
        free()
        if in_use() > 1 / 2:
            jax.clear_caches()
            free()
        STAYED[0] = in_use()


def free():
    """Collects what none can call, and gives its memory back to the system where glibc does so."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def in_use():
    """The share of its regions or of its memory that this process has; 0 where none tells."""
    regions, pages = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/self/statm")
    if not (regions.exists() and pages.exists()):
        return 0.0
    with regions.open() as lines:
        mapped = sum(1 for _ in lines)
    resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return max(mapped / MOST_MAPS, resident / MOST_BYTES)


@pytest.fixture(scope="session")
def cpus():
    """Four virtual CPU devices, also where an accelerator is the default."""
    devices = tuple(jax.devices("cpu"))
    assert len(devices) >= CPU_DEVICES, "unset JAX_NUM_CPU_DEVICES: the tests need four"
    return devices[:CPU_DEVICES]


@pytest.fixture
def compiled():
    """Programs that were compiled, and that were read from the cache, by name."""
    seen = {"cache_misses": 0, "cache_hits": 0}

    def listen(event, **_):
        name = event.removeprefix("/jax/compilation_cache/")
        if name in seen:
            seen[name] += 1

    jax.monitoring.register_event_listener(listen)
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield seen
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    jax.monitoring.unregister_event_listener(listen)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A folder of all processes that the tests run in."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent  # each of several has its own below


@pytest.fixture(scope="session")
def cache(shared):
    """A compilation cache that the experiments of the tests share."""
    folder = shared / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def smokes(shared, cache):
    """Experiment -> its finished smoke run: the folder and the process.

    Made when first asked for, by any of the processes that share the tests; the galleries, which
    share a store of dense nets, one after the other.
    """

    def smoke(experiment):
        folder = shared / experiment
        said = folder / "said.pickle"
        lock = "galleries" if experiment in commands.GALLERIES else experiment
        if not said.exists():
            with FileLock(shared / f"{lock}.lock"):
                if not said.exists():
                    make(experiment, folder, said)
        done = pickle.loads(said.read_bytes())
        assert done.returncode == 0, done.stderr
        return folder / "run", done

    def make(experiment, folder, said):
        words = commands.command(experiment, "--smoke", f"--out={folder / 'run'}")
        if experiment in commands.ON_TWO_DEVICES:
            words.append("--devices=2")
        if experiment in commands.WITH_STORE:
            store = shared if experiment in commands.GALLERIES else folder
            words.append(f"--dense_store={store / 'dense'}")
        done = commands.run(words, cache)
        folder.mkdir(exist_ok=True)
        new = said.with_suffix(".new")
        new.write_bytes(pickle.dumps(done))
        new.replace(said)  # no other process reads half of it

    return smoke


@pytest.fixture(scope="session")
def mlp():
    """Parameters of a 3-4-5-2 net, none of them zero: 12 + 20 + 10 = 42 weights, 11 biases."""
    draw = np.random.default_rng(0)
    return {
        layer: {
            "kernel": draw.standard_normal(shape).astype("f"),
            "bias": draw.standard_normal(shape[1]).astype("f"),
        }
        for layer, shape in {"fc1": (3, 4), "fc2": (4, 5), "out": (5, 2)}.items()
    }


@pytest.fixture(scope="session")
def mlp_wiring():
    """The hidden units of `mlp`: four, then five."""
    return (
        Units("fc1", 4, ("fc1",), (), (Feed("fc2", 1),)),
        Units("fc2", 5, ("fc2",), (), (Feed("out", 1),)),
    )


@pytest.fixture(scope="session")
def evidence(mlp):
    """A tanh net, three batches of five points in two classes; trained weights and others first."""

    def apply(params, stats, images, key, train):
        del key, train
        x = images
        for layer in ("fc1", "fc2"):
            x = jnp.tanh(x @ params[layer]["kernel"] + params[layer]["bias"][None])
        return x @ params["out"]["kernel"] + params["out"]["bias"][None], stats

    def prepare(images):
        return images / 64 - 2

    draw = np.random.default_rng(1)
    batches = Split(
        draw.integers(0, 256, (3, 5, 3)).astype("u1"), draw.integers(0, 2, (3, 5)).astype("i")
    )
    model = Model(lambda key: (mlp, {}), apply)
    loss = losses.classification(model, prepare)
    trained = jax.tree.map(lambda w: (0.9 * w[::-1] + 0.5).astype("f"), mlp)
    return Evidence(mlp, trained, {}, masks.ones(mlp), batches, loss, model, prepare)


@pytest.fixture(scope="session")
def dropping(evidence):
    """The same evidence of a net that drops inputs in training mode."""

    def apply(params, stats, images, key, train):
        if train:
            images = jnp.where(jax.random.bernoulli(key, 0.7, images.shape), images, 0)
        return evidence.model.apply(params, stats, images, key, train)

    model = Model(evidence.model.init, apply)
    return evidence._replace(model=model, loss=losses.classification(model, evidence.prepare))
