"""Gates that train with the weights: what each promises, and what each does by hand.

A gate has a row in `ROWS`. The promises are tested for all rows, in few programs.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import gates, losses, masks, optimizers, runs, training
from jaxtickets.gates import JOINT_GATES
from jaxtickets.types import Model, Split

KEY, OTHER = jax.random.split(jax.random.key(1))
PRUNABLE = ("fc1/kernel", "out/kernel")  # of the net of `mlp`; fc2's kernel stays dense
KEEPS = {"each": {"fc1/kernel": 5, "out/kernel": 3}, "total": 7}
SETTING = gates.Setting(steps=40, examples=100)
STRENGTHS = (0.0, 0.01)


class Row(NamedTuple):
    """What the promises need to know about a gate.

    Attributes:
      certain: `certain(g, params) -> g`: parameters whose gate is fully open and without noise; the
        net is then the plain net, bit for bit.
      random: whether training steps depend on the key.
      by_units: whether the hard mask keeps whole groups of weights, so that counts are of groups.
    """

    certain: Callable[[Any, Any], Any]
    random: bool = False
    by_units: bool = False


def of_leaves(value):
    """`certain` for a gate whose g is like the parameters: all scores are `value`."""
    return lambda g, params: jax.tree.map(lambda leaf: jnp.full_like(leaf, value), g)


ROWS = {
    "continuous_sparsification": Row(of_leaves(1000.0)),
}


def made(name, keep=KEEPS["total"], floor=0):
    return JOINT_GATES[name](PRUNABLE, keep, floor, SETTING)


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def apply(params, stats, images, key=None, train=False):
    """The net of `mlp`, with statistics that say how often it was trained."""
    x = images
    for layer in ("fc1", "fc2"):
        x = jnp.tanh(x @ params[layer]["kernel"] + params[layer]["bias"][None])
    logits = x @ params["out"]["kernel"] + params["out"]["bias"][None]
    return logits, {"seen": stats["seen"] + 1} if train else stats


def prepare(images):
    return images.astype(jnp.float32) / 64 - 2


MODEL = Model(lambda key: None, apply)
LOSS = losses.classification(MODEL, prepare)


def points(n, number):
    """Two classes on either side of a plane; uint8 pixels."""
    x = np.random.default_rng(number).integers(0, 256, (n, 3))
    return Split(jnp.asarray(x, jnp.uint8), jnp.asarray(x[:, 0] > x[:, 1], jnp.int32))


DATA = training.Splits(points(80, 1), points(60, 2))
RECIPE = training.Recipe(
    MODEL, LOSS, lambda rate: optimizers.optimizer("adam", rate), prepare, None, 20, every=20
)


@cache
def ends():
    """Every gate trained at each strength: together, in one program, and alone, in another."""

    def one(name, strength, params):
        gate = made(name)
        trained, stats = gates.start(gate, KEY, params, {"seen": jnp.int32(0)}, strength=strength)
        start = trained, stats, masks.ones(trained)
        rate = jnp.float32(0.02)
        watched, metrics = training.train(
            gates.recipe(gate, RECIPE), OTHER, rate, *start, DATA, SETTING.steps
        )
        end = watched.state
        return end, metrics, gates.ticket(gate, end.params, end.stats)

    @jax.jit
    def alone(strength, params):
        return {name: one(name, strength, params) for name in JOINT_GATES}

    @jax.jit
    def together(strengths, params):
        return jax.lax.map(lambda strength: alone(strength, params), strengths)

    return alone, together


def test_the_table_is_whole():
    assert set(JOINT_GATES) == set(ROWS)


@pytest.mark.parametrize("name", JOINT_GATES)
def test_first_parameters_are_finite_and_the_same_for_the_same_key(name, mlp):
    gate = made(name)
    assert gate.trains_weights
    g = gate.init(KEY, mlp)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(g))
    same(g, gate.init(KEY, mlp))


@pytest.mark.parametrize("name", JOINT_GATES)
def test_a_gate_that_is_open_and_certain_is_the_plain_net_bit_for_bit(name, mlp):
    gate = made(name)
    g = ROWS[name].certain(gate.init(KEY, mlp), mlp)
    for step in (0, SETTING.steps):
        effective, penalty = gate.apply(KEY, jnp.int32(step), g, mlp, jnp.float32(0))
        mean = effective.mean if hasattr(effective, "variance") else effective
        same(jax.tree.map(np.asarray, mean), mlp)
        assert np.isfinite(penalty)
    same(jax.tree.map(np.asarray, gate.weights(g, mlp)), mlp)


@pytest.mark.parametrize("name", JOINT_GATES)
def test_the_penalty_grows_with_the_strength_and_is_finite(name, mlp):
    gate = made(name)
    g = gate.init(KEY, mlp)
    values = [float(gate.apply(KEY, jnp.int32(40), g, mlp, jnp.float32(s))[1]) for s in (0, 1, 2)]
    assert np.isfinite(values).all() and values == sorted(values)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", JOINT_GATES)
def test_the_hard_mask_keeps_exactly_what_is_asked_for(name, keep, mlp):
    gate = made(name, KEEPS[keep])
    mask = gate.harden(gate.init(KEY, mlp), mlp)
    masks.check_mask(mask, mlp)
    counts = masks.counts(mask, PRUNABLE)
    if not ROWS[name].by_units:
        assert (counts if keep == "each" else sum(counts.values())) == KEEPS[keep]
    assert masks.count(mask, ("fc2/kernel",)) == 20
    own = made(name, None).harden(gate.init(KEY, mlp), mlp)
    masks.check_mask(own, mlp)


def test_trained_over_strengths_together_each_is_as_alone_and_the_loss_falls(mlp):
    alone, together = ends()
    strengths = jnp.asarray(STRENGTHS)
    both = together(strengths, mlp)
    for i, strength in enumerate(STRENGTHS):
        solo = alone(jnp.float32(strength), mlp)
        for name in JOINT_GATES:
            state, metrics, (mask, weights) = runs.take(both[name], i)
            same(
                jax.tree.map(np.asarray, (state.params, mask)),
                jax.tree.map(np.asarray, (solo[name][0].params, solo[name][2][0])),
            )
            loss = np.asarray(metrics["train_loss"])
            assert np.isfinite(loss).all() and state.stats.step == SETTING.steps
            assert (np.asarray(state.params.weights["fc1"]["kernel"]) != mlp["fc1"]["kernel"]).any()
            masks.check_mask(mask, weights)
            if strength == 0:
                assert loss[-1, -5:].mean() < loss[0, :5].mean(), name


def test_the_same_key_gives_the_same_weights_and_another_other_ones_to_some(mlp):
    for name, row in ROWS.items():
        gate = made(name)
        g = gate.init(KEY, mlp)
        first, again, other = (
            jax.tree.leaves(gate.apply(key, jnp.int32(3), g, mlp, jnp.float32(1))[0])
            for key in (KEY, KEY, OTHER)
        )
        same(first, again)
        assert any((x != y).any() for x, y in zip(first, other, strict=True)) == row.random, name


# --- continuous sparsification -------------------------------------------------------------------


def test_continuous_sparsification_by_hand(mlp):
    gate = made("continuous_sparsification", None)
    g = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), mlp)
    effective, penalty = gate.apply(KEY, jnp.int32(20), g, mlp, jnp.float32(0.1))
    soft = 1 / (1 + np.exp(-(200**0.5) * 0.5))
    np.testing.assert_allclose(effective["out"]["kernel"], mlp["out"]["kernel"] * soft, rtol=1e-5)
    np.testing.assert_array_equal(effective["fc2"]["kernel"], mlp["fc2"]["kernel"])
    np.testing.assert_allclose(penalty, 0.1 * 22 * soft, rtol=1e-5)
    kept = gate.harden(jax.tree.map(lambda s, w: s * np.sign(w), g, mlp), mlp)
    np.testing.assert_array_equal(kept["fc1"]["kernel"], mlp["fc1"]["kernel"] > 0)
