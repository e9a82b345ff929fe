"""A step whose examples are divided among devices is one device's, with any batch norm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_training as net

from jaxtickets import losses, masks, nets, optimizers, runs, training
from jaxtickets.dynamic.static import masked
from jaxtickets.types import Split


def batch():
    """Eight images, darker first: each device's two have other statistics than all have."""
    shades = np.arange(0, 240, 30).reshape(8, 1, 1, 1)
    noise = np.random.default_rng(0).integers(0, 16, (8, 2, 2, 1))
    return Split(jnp.asarray(shades + noise, jnp.uint8), jnp.arange(8) % net.CLASSES)


GHOSTS = losses.classification(nets.ghost_batch_norm(net.MODEL, 4), net.prepare)
"""The loss of a net whose batch norms see a quarter of the batch."""


def after(axis, parts, average=0.0, loss=net.LOSS):
    """The state after a step on the devices of an axis, and its metrics."""
    params, stats = net.start()
    optimizer = masked(optimizers.optimizer("momentum", 0.1), masks.ones(params))
    state = training.init(params, stats, optimizer, average=average)

    def step(state, batch):
        return training.step(loss, optimizer, net.KEY, state, batch, parts)

    return jax.tree.map(
        lambda leaf: leaf[0],
        runs.over_runs(step, axis, jax.tree.map(lambda leaf: leaf[None], state), batch()),
    )


@pytest.mark.parametrize(("parts", "average"), [(1, 0.5), (2, 0.0)])
def test_devices_that_share_a_step_take_one_devices_step(parts, average, cpus):
    alone = after(runs.axis("map", devices=cpus[:1]), parts, average)
    shared = after(runs.axis("data", devices=cpus[:4]), parts, average)
    for x, y in zip(*map(jax.tree.leaves, (shared, alone)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_batch_norm_has_the_statistics_of_all_devices_examples(cpus):
    (params, stats), images = net.start(), net.prepare(batch().images)
    inputs = images.reshape(8, -1) @ params["fc"]["kernel"]
    got = after(runs.axis("data", devices=cpus[:4]), 1)[0].stats["bn"]
    whole = 0.99 * stats["bn"]["var"] + 0.01 * inputs.var(0)
    np.testing.assert_allclose(got["var"], whole, rtol=1e-5)
    # the mean of each device's own variance is another number
    own = 0.99 * stats["bn"]["var"] + 0.01 * inputs.reshape(4, 2, -1).var(1).mean(0)
    assert np.abs(own - whole).max() > 1e-4


def test_a_device_sees_its_own_examples_statistics_if_it_is_asked_to(cpus):
    alone = after(runs.axis("map", devices=cpus[:1]), 1, loss=GHOSTS)
    shared = after(runs.axis("data", devices=cpus[:4]), 1, loss=GHOSTS)
    for x, y in zip(*map(jax.tree.leaves, (shared, alone)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    (params, stats), images = net.start(), net.prepare(batch().images)
    inputs = images.reshape(4, 2, -1) @ params["fc"]["kernel"]
    own = 0.99 * stats["bn"]["var"] + 0.01 * inputs.var(1).mean(0)
    np.testing.assert_allclose(shared[0].stats["bn"]["var"], own, rtol=1e-5)


@pytest.mark.parametrize(("parts", "waits"), [(1, True), (4, False), (8, False)])
def test_no_layer_waits_for_another_device_if_each_sees_its_own_examples(parts, waits, cpus):
    (params, stats), model = net.start(), nets.ghost_batch_norm(net.MODEL, parts)
    axis = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(np.array(cpus[:4]), ("examples",), axis_types=axis)
    images = net.prepare(jnp.tile(batch().images, (2, 1, 1, 1)))
    parted = jax.NamedSharding(mesh, jax.P("examples"))

    def outputs(images):
        return model.apply(params, stats, images, net.KEY, True)[0]

    program = jax.jit(outputs, in_shardings=parted).lower(images).compile().as_text()
    assert bool(re.search(r"all-(reduce|gather|to-all)|collective-permute", program)) == waits
