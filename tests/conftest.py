"""What all tests share: several CPU devices, and a tiny net with its wiring."""

import jax
import numpy as np
import pytest

from jaxtickets.types import Feed, Units

CPU_DEVICES = 4
if jax.config.jax_num_cpu_devices < 0:  # JAX has not been told from outside
    jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def cpus():
    """Four virtual CPU devices, also where an accelerator is the default."""
    devices = tuple(jax.devices("cpu"))
    assert len(devices) >= CPU_DEVICES, "unset JAX_NUM_CPU_DEVICES: the tests need four"
    return devices[:CPU_DEVICES]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A compilation cache that the experiments of the tests share."""
    return tmp_path_factory.mktemp("cache")


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
