"""Random learning rates: one for each output feature, the output layer's as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import alrao, masks
from jaxtickets.dynamic import static

KEY = jax.random.key(0)


def test_a_layers_leaves_share_the_factors_of_their_features(mlp):
    found = alrao.factors(KEY, mlp, 0.01, 10.0, "out")
    for layer in ("fc1", "fc2"):
        kernel, bias = found[layer]["kernel"], found[layer]["bias"]
        np.testing.assert_array_equal(kernel, np.broadcast_to(bias, kernel.shape))
        assert len(set(bias.tolist())) == len(bias)
        assert np.all((bias >= 0.01) & (bias <= 10))
    assert not np.any(np.isin(found["fc1"]["bias"], found["fc2"]["bias"]))
    assert np.all(found["out"]["kernel"] == 1) and np.all(found["out"]["bias"] == 1)
    assert alrao.factors(KEY, {"scale": jnp.float32(2)}, 0.01, 10.0)["scale"].shape == ()


def test_factors_are_log_uniform():
    """A third of 20,000 logarithms lies in each third of the interval, give or take 1 %."""
    found = alrao.factors(KEY, {"fc": {"bias": jnp.zeros(20_000)}}, 1e-4, 1e2)
    counts, _ = np.histogram(np.log10(found["fc"]["bias"]), [-4, -2, 0, 2])
    np.testing.assert_allclose(counts / 20_000, 1 / 3, rtol=0.04)


@pytest.mark.parametrize("inner", [optax.sgd(0.1, momentum=0.9), optax.adam(0.1)])
def test_updates_are_the_inner_optimisers_times_the_factors(inner, mlp):
    gradient = jax.tree.map(jnp.cos, mlp)
    optimizer = alrao.alrao(inner, KEY, 0.1, 2.0, "out")
    state, own = optimizer.init(mlp), inner.init(mlp)
    scale = alrao.factors(KEY, mlp, 0.1, 2.0, "out")
    for _ in range(2):
        updates, state = jax.jit(optimizer.update)(gradient, state, mlp)
        plain, own = inner.update(gradient, own, mlp)
        expected = jax.tree.map(jnp.multiply, plain, scale)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, own)


def test_it_is_the_inner_optimiser_of_a_sparse_one_and_its_interval_a_batch_axis(mlp):
    mask = masks.random(KEY, mlp, masks.prunable(mlp), 10)

    def run(high):
        optimizer = static.masked(alrao.alrao(optax.sgd(0.1), KEY, 0.1, high), mask)
        params = masks.apply(mask, mlp)
        updates, _ = optimizer.update(mlp, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    many = jax.jit(jax.vmap(run))(jnp.array([0.1, 1.0]))
    for leaf, keep, w in zip(*map(jax.tree.leaves, (many, mask, mlp)), strict=True):
        assert not np.any(np.asarray(leaf)[:, ~np.asarray(keep)])
        # by hand: w - 0.1 · 0.1 · w where the interval is a point
        np.testing.assert_allclose(leaf[0], np.where(keep, 0.99 * w, 0), rtol=1e-5)


def test_what_can_not_be_is_refused_in_one_line(mlp):
    for low, high in ((0.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match=r"must be 0 < low <= high$"):
            alrao.alrao(optax.sgd(0.1), KEY, low, high)
    optimizer = alrao.alrao(optax.sgd(0.1), KEY, 0.1, 1.0, "fc9")
    with pytest.raises(ValueError, match=r"^no layer 'fc9'; there are fc1, fc2, out$"):
        optimizer.update(mlp, optimizer.init(mlp), mlp)
