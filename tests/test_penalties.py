"""Penalties on units: what they count, how they pull, and where they come into the loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.early_bird.draw_plan import DrawSettings, plan_draws
from experiments.harness.problem import build, penalty_of
from experiments.harness.training_settings import NetSettings, TrainSettings
from jaxtickets import nets
from jaxtickets.io.errors import UserError
from jaxtickets.penalties import PENALTIES, group_lasso, hoyer_square, scales

PARAMS = {
    "conv": {"kernel": jnp.array([[3.0, 0.0, 1.0], [4.0, 0.0, 1.0]]).reshape(1, 2, 1, 3)},
    "norm": {"scale": jnp.array([1.0, -2.0, 0.5, 0.0]), "bias": jnp.array([9.0, 9.0, 9.0, 9.0])},
    "block": {"norm": {"scale": jnp.array([-0.25]), "bias": jnp.zeros(1)}},
    "fc": {"kernel": jnp.array([[2.0], [-1.0], [2.0]]), "bias": jnp.array([7.0])},
    "out": {"kernel": jnp.array([[5.0, 6.0]]), "bias": jnp.ones(2)},
}


def test_scales_are_counted_of_all_batch_norms_and_nothing_else():
    assert float(scales(PARAMS, "out")) == 3.75  # 1 + 2 + 0.5 + 0.25


def test_groups_are_filters_and_neurons_weighed_by_the_root_of_their_size():
    # conv: sqrt 2 (5 + 0 + sqrt 2); fc: sqrt 3 · 3; the output's are free
    expected = 2**0.5 * (5 + 2**0.5) + 3**0.5 * 3
    np.testing.assert_allclose(group_lasso(PARAMS, "out"), expected, rtol=1e-6)
    with_output = group_lasso(PARAMS, "fc")
    np.testing.assert_allclose(with_output, 2**0.5 * (5 + 2**0.5) + 11, rtol=1e-6)
    own = {"fc": {"weight": jnp.array([[3.0], [4.0]]), "bias": jnp.ones((1, 1))}}
    np.testing.assert_allclose(group_lasso(own, "out"), 2**0.5 * 5, rtol=1e-6)


def test_groups_of_other_kinds_by_hand():
    # conv has one input channel, and the shapes (3, 0, 1) and (4, 0, 1); fc, of one unit, 3 inputs
    shapes = 3**0.5 * (10**0.5 + 17**0.5)
    for groups, expected in {"channels": 162**0.5, "shapes": shapes, "inputs": 2 + 1 + 2}.items():
        np.testing.assert_allclose(group_lasso(PARAMS, "out", groups), expected, rtol=1e-6)
    wide = {"conv": {"kernel": jnp.arange(8.0).reshape(2, 1, 2, 2)}}
    # channels (0, 1, 4, 5) and (2, 3, 6, 7); shapes (0, 1), (2, 3), (4, 5) and (6, 7)
    np.testing.assert_allclose(
        group_lasso(wide, "out", "channels"), 2 * (42**0.5 + 98**0.5), rtol=1e-6
    )
    shapes = 2**0.5 * (1 + 13**0.5 + 41**0.5 + 85**0.5)
    np.testing.assert_allclose(group_lasso(wide, "out", "shapes"), shapes, rtol=1e-6)


def test_hoyer_square_by_hand():
    # conv: (3 + 1 + 4 + 1)² / (9 + 1 + 16 + 1); fc: 5² / 9; out: 11² / 61
    np.testing.assert_allclose(hoyer_square(PARAMS, "out"), 81 / 27 + 25 / 9 + 121 / 61, rtol=1e-6)
    scaled = jax.tree.map(lambda leaf: -30 * leaf, PARAMS)
    np.testing.assert_allclose(hoyer_square(scaled, "out"), hoyer_square(PARAMS, "out"), rtol=1e-6)
    zero = {"fc": {"kernel": jnp.zeros((2, 2))}, "out": {"kernel": jnp.ones((1, 5))}}
    assert float(hoyer_square(zero, "out")) == 5
    slopes = jax.grad(lambda params: hoyer_square(params, "out"))(zero)
    assert not np.any(slopes["fc"]["kernel"])


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_are_finite_differences_and_zero_at_groups_of_zeros(name):
    measure = jax.jit(lambda params: PENALTIES[name](params, "out"))
    slopes = jax.grad(measure)(PARAMS)
    leaves, tree = jax.tree.flatten(PARAMS)
    for i, leaf in enumerate(leaves):
        found = np.asarray(jax.tree.leaves(slopes)[i]).ravel()
        assert np.isfinite(found).all()
        for at, value in enumerate(np.asarray(leaf).ravel()):
            if value == 0:
                assert found[at] == 0
                continue
            ends = []
            for shift in (0.01, -0.01):
                moved = np.array(leaf).ravel()
                moved[at] += shift
                moved = jnp.asarray(moved.reshape(leaf.shape))
                ends.append(float(measure(tree.unflatten([*leaves[:i], moved, *leaves[i + 1 :]]))))
            np.testing.assert_allclose(found[at], (ends[0] - ends[1]) / 0.02, atol=2e-3)


def test_what_is_not_there_can_not_be_penalised(mlp):
    with pytest.raises(ValueError, match="there is no batch norm"):
        scales(mlp, "out")
    with pytest.raises(ValueError, match="no layer besides the output"):
        group_lasso({"out": mlp["out"]}, "out")
    with pytest.raises(ValueError, match="no layer besides the output has groups of channels"):
        group_lasso(mlp, "out", "channels")
    with pytest.raises(ValueError, match="no leaf is a kernel by its name"):
        hoyer_square({"norm": {"scale": np.ones(2)}}, "out")


def test_the_loss_of_a_problem_has_the_penalty_times_its_strength():
    net, train = NetSettings(model="lenet300_100", widths="5,4"), TrainSettings(batch_size=20)
    plain = build(net, train, "", False)
    assert plain.net.widths == (5, 4) and plain.penalty is None
    lasso = dataclasses.replace(train, penalty="group_lasso", penalty_strength=0.5)
    problem = build(net, lasso, "", False)
    params, stats = plain.recipe.model.init(jax.random.key(3))
    batch = jax.tree.map(lambda a: a[:20], problem.dataset.train)
    both = [p.recipe.loss(params, stats, batch, jax.random.key(0))[0] for p in (plain, problem)]
    np.testing.assert_allclose(both[1] - both[0], 0.5 * group_lasso(params, "out"), rtol=1e-5)
    np.testing.assert_allclose(problem.penalty(params), 0.5 * group_lasso(params, "out"), rtol=1e-6)


def test_a_net_without_batch_norm_is_refused_in_one_line():
    train = TrainSettings(penalty="scales")
    with pytest.raises(UserError, match=r"^--penalty=scales with lenet5: there is no batch norm"):
        build(NetSettings(), train, "", False)
    net = nets.make("resnet20")
    params, _ = jax.eval_shape(nets.functional(net, (28, 28, 1)).init, jax.random.key(0))
    for name in PENALTIES:
        assert penalty_of(dataclasses.replace(train, penalty=name), net, params) is not None


def test_early_bird_keeps_the_penalty_and_has_its_own_where_units_are_searched():
    train = TrainSettings(batch_size=500, epochs=8, penalty="group_lasso")
    problem = build(NetSettings(model="lenet300_100", widths="5,4"), train, "", False)
    params, stats = problem.recipe.model.init(jax.random.key(3))
    batch = jax.tree.map(lambda a: a[:20], problem.dataset.train)
    search = plan_draws(DrawSettings(draw_at=(1,)), problem).search
    found = [p.recipe.loss(params, stats, batch, jax.random.key(0))[0] for p in (problem, search)]
    assert float(found[0]) == float(found[1])
    with pytest.raises(
        UserError, match="--penalty: with --granularity=units give --scale_l1 instead"
    ):
        plan_draws(DrawSettings(granularity="units", draw_at=(1,)), problem)

    net = NetSettings(widths="2,3,4", batch_norm=True)
    plain = build(net, dataclasses.replace(train, penalty=""), "", False)
    units = DrawSettings(granularity="units", density=(0.5,), draw_at=(1,), scale_l1=0.5)
    shapes = jax.eval_shape(plain.recipe.model.init, jax.random.key(0))
    params, stats = jax.tree.map(lambda a: 0.1 * jnp.ones(a.shape, a.dtype), shapes)
    searched = plan_draws(units, plain).search
    batch = jax.tree.map(lambda a: a[:2], plain.dataset.train)
    ends = [
        jax.jit(p.recipe.loss)(params, stats, batch, jax.random.key(0))[0]
        for p in (plain, searched)
    ]
    np.testing.assert_allclose(ends[1] - ends[0], 0.5 * 0.1 * 9, rtol=1e-4)
