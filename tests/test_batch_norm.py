"""Batch-norm statistics estimated again: those of the data, whatever was recorded before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxtickets import nets
from jaxtickets.compress.batch_norm import reestimate


class Net(nn.Module):
    """Two batch norms of different momenta, with a dense layer between them."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="first")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(3, name="dense")(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.5, name="second")(x)


def drawn(net):
    model = nets.functional(net, (4,))
    params, stats = model.init(jax.random.key(0))
    images = np.random.default_rng(0).normal(2, 3, (5, 8, 4)).astype("f")
    return model, params, stats, images


def test_statistics_are_the_means_of_those_of_the_batches():
    model, params, stats, images = drawn(Net())
    # worked without flax: each batch is normalised by its own statistics before the dense layer
    means, variances = images.mean(1, keepdims=True), images.var(1, keepdims=True)
    inside = (images - means) / np.sqrt(variances + 1e-5) @ np.asarray(params["dense"]["kernel"])
    expected = {
        "first": {"mean": means.mean((0, 1)), "var": variances.mean((0, 1))},
        "second": {"mean": inside.mean(1).mean(0), "var": inside.var(1).mean(0)},
    }
    found = jax.jit(reestimate, static_argnums=0)(model, params, stats, images)
    assert jax.tree.structure(found) == jax.tree.structure(stats)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )
    other = jax.tree.map(lambda leaf: leaf * 7 + 3, stats)
    prepared = reestimate(model, params, other, images * 2, prepare=lambda batch: batch / 2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), prepared, found
    )


def test_dropout_draws_anew_for_each_batch():
    model, params, stats, images = drawn(Net(dropout=0.5))
    same = jnp.broadcast_to(images[0], images.shape)
    once, often = (
        reestimate(model, params, stats, batches, key=jax.random.key(1))
        for batches in (same[:1], same)
    )
    np.testing.assert_allclose(once["first"]["mean"], often["first"]["mean"], rtol=1e-5)
    assert (abs(once["second"]["var"] - often["second"]["var"]) > 1e-3).all()


def test_a_net_without_batch_norm_has_nothing_to_estimate_and_no_batch_is_refused():
    model, params, stats, images = drawn(Net())
    assert reestimate(model, params, {}, images) == {}
    with pytest.raises(ValueError, match="at least one batch"):
        reestimate(model, params, stats, images[:0])
