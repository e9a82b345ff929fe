"""The proximal step of the group lasso: a minimum, with exact zeros, around any optimiser."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import masks, optimizer_states, penalties, training
from jaxtickets.dynamic import proximal, static
from jaxtickets.types import Split

DRAW = np.random.default_rng(5)
PARAMS = {
    "conv": {"kernel": DRAW.standard_normal((2, 2, 3, 4)).astype("f"), "bias": np.ones(4, "f")},
    "fc": {"kernel": DRAW.standard_normal((5, 3)).astype("f"), "bias": np.ones(3, "f")},
}
BOTH = ("conv/kernel", "fc/kernel")
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


def slices(groups, leaf):
    """The groups of a kernel as indices, written out."""
    every = slice(None)
    if groups == "filters":
        return [(..., unit) for unit in range(leaf.shape[-1])]
    if groups == "inputs":
        return [(row,) for row in range(5)] if leaf.ndim == 2 else []
    if leaf.ndim == 2:
        return []
    if groups == "channels":
        return [(every, every, channel) for channel in range(3)]
    return list(np.ndindex(2, 2, 3))


def step_of(optimizer, gradient, params=PARAMS):
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    return jax.tree.map(np.asarray, optax.apply_updates(params, updates))


@pytest.mark.parametrize("groups", penalties.GROUPS)
def test_the_step_is_the_minimum_of_the_proximal_objective_in_each_group(groups):
    """Against a search along the group's direction, where the minimum lies, and around it."""
    gradient = jax.tree.map(lambda w: 0.5 * jnp.cos(9 * w), PARAMS)
    reached = jax.tree.map(lambda w, g: np.asarray(w - 0.2 * g, float), PARAMS, gradient)
    kernels = masks.pick(reached, BOTH)
    sizes = [np.sqrt(np.mean(w[index] ** 2)) for w in kernels for index in slices(groups, w)]
    least = np.median(sizes) * 1.01  # half of the groups vanish
    found = step_of(proximal.group_lasso(optax.sgd(0.2), 0.2, least / 0.2, BOTH, groups), gradient)
    zeros = kept = 0
    for layer in ("conv", "fc"):
        np.testing.assert_allclose(found[layer]["bias"], reached[layer]["bias"], rtol=1e-6)
        before, after = reached[layer]["kernel"], found[layer]["kernel"]
        there = slices(groups, before)
        if not there:
            np.testing.assert_allclose(after, before, rtol=1e-6)
        for index in there:
            w, x = before[index].ravel(), np.asarray(after[index], float).ravel()

            def objective(x, w=w):
                pull = least * np.sqrt(w.size) * np.linalg.norm(x, axis=-1)
                return np.sum((x - w) ** 2, -1) / 2 + pull

            along = np.linspace(-0.5, 1.5, 4001)[:, None] * w
            np.testing.assert_allclose(x, along[np.argmin(objective(along))], atol=2e-3)
            around = x + 0.01 * DRAW.standard_normal((200, w.size))
            assert (objective(around) >= objective(x) - 1e-7).all()
            zeros, kept = zeros + (not x.any()), kept + x.any()
            assert x.all() or not x.any()
    assert zeros and kept


def test_the_step_by_hand():
    # the columns reach (3, 4), (0.3, 0.4) and 0; η λ sqrt(2) is 1: a factor of 1 - 1/5, and zero
    kernel = jnp.array([[3.0, 1.3, 0.0], [4.0, 0.4, 0.0]])
    gradient = {"w": jnp.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])}
    optimizer = proximal.group_lasso(optax.sgd(0.5), 0.5, 2 / 2**0.5, ("w",))
    found = step_of(optimizer, gradient, {"w": kernel})["w"]
    np.testing.assert_allclose(found, [[2.4, 0, 0], [3.2, 0, 0]], rtol=1e-6)
    assert (found[:, 1:] == 0).all()
    unchanged = proximal.group_lasso(optax.sgd(0.5), 0.5, 0.0, ("w",))
    np.testing.assert_allclose(
        step_of(unchanged, gradient, {"w": kernel})["w"], [[3, 0.3, 0], [4, 0.4, 0]], rtol=1e-6
    )


def test_groups_of_zeros_are_exact_zeros_whatever_the_weights_were():
    optimizer = proximal.group_lasso(optax.adam(0.01), 1.0, 1e6, BOTH)
    found = step_of(optimizer, jax.tree.map(lambda w: 1 / w, PARAMS))
    assert not any(np.any(leaf) for leaf in masks.pick(found, BOTH))


def test_the_rate_follows_its_schedule_also_after_rewinding():
    # without gradient, a column of norm 5 and size 2 loses η sqrt(2), η = 0.1 (step + 1)
    params = {"w": jnp.array([[3.0], [4.0]])}
    optimizer = proximal.group_lasso(optax.sgd(0.1), lambda t: 0.1 * (t + 1), 1.0, ("w",))
    zero, state = {"w": jnp.zeros((2, 1))}, optimizer.init(params)
    norms = []
    for _ in range(2):
        updates, state = optimizer.update(zero, state, params)
        params = optax.apply_updates(params, updates)
        norms.append(float(jnp.linalg.norm(params["w"])))
    np.testing.assert_allclose(norms, [5 - 0.1 * 2**0.5, 5 - 0.3 * 2**0.5], rtol=1e-6)
    fresh = optimizer_states.at_step(optimizer, optimizer.init(params), params, 7)
    updates, _ = optimizer.update(zero, fresh, params)
    left = jnp.linalg.norm(optax.apply_updates(params, updates)["w"])
    np.testing.assert_allclose(left, norms[-1] - 0.8 * 2**0.5, rtol=1e-6)


def test_stronger_runs_of_one_batch_have_more_zero_groups_and_obey_their_mask():
    mask = masks.random(jax.random.key(0), PARAMS, BOTH, 50)

    def loss(params, stats, batch, key):
        del key
        total = sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(params))
        return total * jnp.mean(batch.images), (stats, {"loss": total})

    batches = Split(jnp.ones((30, 2, 1)), jnp.zeros((30, 2), int))

    @partial(jax.jit, static_argnums=1)
    def ends(strengths, adaptive):
        def one(strength):
            inner = optax.adam(0.05) if adaptive else optax.sgd(0.05)
            inner = proximal.group_lasso(inner, 0.05, strength, BOTH)
            inner = proximal.group_lasso(inner, 0.05, strength, BOTH, "inputs")
            optimizer = static.masked(inner, mask)
            state = training.init(PARAMS, {}, optimizer)
            return training.advance(loss, optimizer, jax.random.key(1), state, batches)[0].params

        return jax.vmap(one)(strengths)

    for adaptive in (False, True):
        params = ends(jnp.array([0.0, 0.3, 3.0]), adaptive)
        filters = [
            np.any(np.asarray(leaf).reshape(3, -1, leaf.shape[-1]), 1).sum(1)
            for leaf in masks.pick(params, BOTH)
        ]
        counts = sum(filters)
        assert counts[0] == 7 and counts[0] >= counts[1] > counts[2] == 0
        for i in range(3):
            each = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            for got, obeying in zip(
                jax.tree.leaves(each), jax.tree.leaves(masks.apply(mask, each)), strict=True
            ):
                np.testing.assert_array_equal(got, obeying)


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^unknown groups 'rows'; there are filters, channels"):
        proximal.group_lasso(optax.sgd(0.1), 0.1, 1.0, BOTH, "rows")
    for strength in (-1, np.nan):
        with pytest.raises(ValueError, match=rf"^strength={strength}: must be 0 or more$"):
            proximal.group_lasso(optax.sgd(0.1), 0.1, strength, BOTH)
    lasso = proximal.group_lasso(optax.sgd(0.1), 0.1, 1.0, ("fc/kernel",), "channels")
    with pytest.raises(ValueError, match=r"^no kernel has groups of channels among fc/kernel$"):
        lasso.init(PARAMS)
    lasso = proximal.group_lasso(optax.sgd(0.1), 0.1, 1.0, BOTH)
    with pytest.raises(ValueError, match=r"needs the parameters$"):
        lasso.update(ZERO, lasso.init(PARAMS))
