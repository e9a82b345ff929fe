"""Shared weights: what each quantiser keeps, and that a codebook trains by its members' sums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtickets import masks, training
from jaxtickets.compress.weight_sharing import (
    QUANTISERS,
    Shared,
    restore,
    rounded,
    share,
    shared_loss,
    trainable,
    values,
    with_trained,
)
from jaxtickets.dynamic.static import masked

quick = settings(max_examples=30, deadline=None, database=None)


@pytest.fixture(scope="module")
def mask(mlp):
    draw = np.random.default_rng(2)
    return jax.tree.map(lambda p: draw.random(p.shape) < (0.6 if p.ndim > 1 else 1), mlp)


@quick
@pytest.mark.parametrize("name", QUANTISERS)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    density=st.sampled_from([0, 0.2, 1]),
    levels=st.sampled_from([3, 5, 15, 255]),
    seed=st.integers(0, 99),
)
def test_every_quantiser_keeps_the_shape_and_few_values(name, shape, density, levels, seed):
    draw = np.random.default_rng(seed)
    leaf, kept = draw.standard_normal(shape).astype("f"), draw.random(shape) < density
    kept.flat[0] = True
    shared = QUANTISERS[name](leaf, kept, levels, seed)
    assert shared.codebook.size <= levels and shared.assignments.shape == tuple(shape)
    assert shared.codebook.dtype == leaf.dtype and shared.assignments.dtype == np.int32
    assert not shared.assignments[~kept].any()
    scales = 1 if shared.scale is None else shared.scale.size
    assert scales in (1, shape[-1]) and len(np.unique(values(shared)[kept])) <= levels * scales
    if shared.scale is None and len(np.unique(leaf[kept])) <= levels:
        np.testing.assert_array_equal(values(shared)[kept], leaf[kept])  # nothing is lost


def test_a_leaf_without_weights_shares_a_zero():
    params, mask = {"kernel": np.ones((2, 3), np.float32)}, {"kernel": np.zeros((2, 3), bool)}
    for quantiser in QUANTISERS.values():
        shared = share(params, mask, 3, ("kernel",), quantiser)
        np.testing.assert_array_equal(values(shared["kernel"]), np.zeros((2, 3)))


def test_uniform_quantisation_worked_by_hand():
    kernel = np.array([[3.0, -10], [-1, 4], [0.4, 9]], np.float32)
    mask = np.array([[True, False], [True, True], [True, True]])
    whole = QUANTISERS["uniform"](kernel, mask, 7, 0)
    # m = 3 and s = 9 / 3: 3, -1, 4, 0.4 and 9 are 1, -0.33, 1.33, 0.13 and 3 steps
    np.testing.assert_array_equal(whole.scale, [3])
    np.testing.assert_array_equal(whole.codebook, [0, 1, 2, 3])
    np.testing.assert_array_equal(whole.assignments, [[1, 0], [0, 1], [0, 3]])
    each = QUANTISERS["uniform_by_output"](kernel, mask, 7, 0)
    np.testing.assert_array_equal(each.scale, [1, 3])
    np.testing.assert_array_equal(np.where(mask, values(each), 0), [[3, 0], [-1, 3], [0, 9]])


@pytest.mark.parametrize("name", ["uniform", "uniform_by_output"])
def test_uniform_quantisation_errs_by_half_a_step_at_most(name):
    kernel = np.random.default_rng(0).standard_normal((20, 8)).astype("f")
    shared = QUANTISERS[name](kernel, np.ones(kernel.shape, bool), 15, 0)
    assert (np.abs(values(shared) - kernel) <= 0.5001 * shared.scale).all()


@pytest.mark.parametrize("quantiser", ["linear", "uniform", "uniform_by_output"])
def test_the_gradient_of_what_trains_is_the_sum_over_its_members(mlp, mask, quantiser):
    sharing = share(mlp, mask, 5, ("fc1/kernel",), QUANTISERS[quantiser])
    weights = np.random.default_rng(3).standard_normal((3, 4)).astype("f")

    def loss(trained):
        new, params = with_trained(sharing, mlp, trained)
        return jnp.sum(weights * restore(new, mask, params)["fc1"]["kernel"] ** 2)

    found = jax.grad(loss)(trainable(sharing, mlp))
    shared = sharing["fc1/kernel"]
    by_weight = np.where(mask["fc1"]["kernel"], 2 * weights * values(shared), 0)
    members = np.asarray(shared.assignments)
    if shared.scale is None:
        expected = [by_weight[members == k].sum() for k in range(shared.codebook.size)]
    else:
        steps = by_weight * np.asarray(shared.codebook)[members]
        expected = steps.sum(0) if shared.scale.size > 1 else [steps.sum()]
    np.testing.assert_allclose(found["fc1/kernel"], expected, rtol=1e-5)
    assert not found["fc2/kernel"].any()


def test_shared_weights_train_in_the_librarys_loop_and_stay_shared(evidence, mlp, mask):
    sharing = share(mlp, mask, 4, masks.prunable(mlp))
    loss = shared_loss(evidence.loss, sharing, mask, mlp)
    start = trainable(sharing, mlp)
    optimizer = masked(optax.sgd(0.1), masks.ones(start))
    state = training.init(start, {}, optimizer)
    batches = jax.tree.map(lambda a: jnp.tile(a, (20,) + (1,) * (a.ndim - 1)), evidence.batches)
    advance = jax.jit(partial(training.advance, loss, optimizer))
    state, metrics = advance(jax.random.key(0), state, batches)
    assert metrics["loss"][-1] < metrics["loss"][0]
    sharing, params = with_trained(sharing, mlp, state.params)
    final = restore(sharing, mask, params)
    for leaf, kept in zip(
        masks.pick(final, tuple(sharing)), masks.pick(mask, tuple(sharing)), strict=True
    ):
        assert len(np.unique(leaf[kept])) <= 4 and not np.asarray(leaf)[~kept].any()
    assert not np.array_equal(final["fc1"]["bias"], mlp["fc1"]["bias"])


def test_rounded_values_fit_in_sixteen_bits_and_too_large_ones_are_refused():
    shared = Shared(jnp.array([0.1, 1e4]), jnp.array([0, 1, 1]), jnp.array([0.3]))
    near = rounded({"w": shared})["w"]
    for array in (near.codebook, near.scale):
        assert array.dtype == jnp.float32
        np.testing.assert_array_equal(array, np.asarray(array).astype("f2"))
    with pytest.raises(ValueError, match="value of w is outside the range of float16"):
        rounded({"w": shared._replace(codebook=jnp.array([1e5]))})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"levels": 0}, "fc1/kernel: 0 levels"),
        ({"levels": 4, "quantiser": QUANTISERS["uniform"]}, "4 levels of uniform"),
        ({"leaves": ("fc9/kernel",)}, "no leaf 'fc9/kernel'"),
        ({"params": "nan"}, "fc1/kernel holds NaN or infinity"),
        ({"mask": {}}, "the mask"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_line(mlp, mask, change, says):
    if "params" in change:
        kernel = np.where(mask["fc1"]["kernel"], np.nan, 0).astype("f")
        change = {"params": masks.put(mlp, ("fc1/kernel",), [kernel])}
    usual = {"params": mlp, "mask": mask, "levels": 4, "leaves": ("fc1/kernel",)}
    with pytest.raises(ValueError, match=says) as error:
        share(**(usual | change))
    assert "\n" not in str(error.value)
