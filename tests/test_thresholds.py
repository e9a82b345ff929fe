"""Threshold pruning: values by hand, what is cut, and how often weights are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets import masks, nets
from jaxtickets.recipes.thresholds import RULES, cut, thresholds

PARAMS = {
    "a": {"kernel": np.array([[-4.0, 1.0], [2.0, -3.0]], "f"), "bias": np.array([9.0, 9.0], "f")},
    "b": {"kernel": np.array([[0.5, -5.0]], "f"), "bias": np.array([9.0, 9.0], "f")},
}
PRUNABLE = masks.prunable(PARAMS)
WHOLE = masks.ones(PARAMS)


def values(rule, t, mask=WHOLE):
    found = jax.jit(thresholds, static_argnums=(0, 3))(rule, PARAMS, mask, PRUNABLE, t)
    return [float(found[path]) for path in PRUNABLE]


def kept(rule, t, mask=WHOLE):
    found = thresholds(rule, PARAMS, mask, PRUNABLE, t)
    return cut(rule, PARAMS, mask, PRUNABLE, found)


def test_a_quantile_is_of_all_prunable_weights_together():
    assert values("quantile", 0.4) == [2, 2]  # of 0.5 1 2 3 4 5; biases aren't counted
    left = kept("quantile", 0.4)
    np.testing.assert_array_equal(left["a"]["kernel"], [[True, False], [False, True]])
    np.testing.assert_array_equal(left["b"]["kernel"], [[False, True]])
    assert left["a"]["bias"].all()


def test_a_deviation_is_of_the_weights_that_a_layer_has_left():
    assert values("deviation", 0.5) == pytest.approx(
        [0.5 * np.std([-4, 1, 2, -3]), 0.5 * np.std([0.5, -5])]
    )
    mask = masks.ones(PARAMS)
    mask["a"]["kernel"] = jnp.array([[True, False], [True, True]])
    assert values("deviation", 2.0, mask)[0] == pytest.approx(2 * np.std([-4, 2, -3]))


def test_signed_values_cost_the_negative_weights():
    assert values("signed_quantile", 0.4) == [-3, -3]  # of -5 -4 -3 0.5 1 2
    left = kept("signed_quantile", 0.4)
    np.testing.assert_array_equal(left["a"]["kernel"], [[False, True], [True, False]])
    np.testing.assert_array_equal(left["b"]["kernel"], [[True, False]])


@pytest.mark.parametrize("rule", RULES)
def test_what_is_pruned_stays_pruned(rule):
    mask = masks.ones(PARAMS)
    mask["b"]["kernel"] = jnp.array([[False, False]])
    assert not kept(rule, 0.2, mask)["b"]["kernel"].any()


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="unknown rule 'median': one of quantile"):
        thresholds("median", PARAMS, WHOLE, PRUNABLE, 0.5)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("lenet300_100", (28, 28, 1), {"fc1": 1, "fc2": 1, "out": 1}),
        ("lenet5", (28, 28, 1), {"conv1": 576, "conv2": 64, "fc1": 1, "out": 1}),
        ("cnn960", (32, 32, 3), {"conv1": 225, "conv2": 169, "conv3": 36, "conv4": 16, "out": 1}),
    ],
)
def test_a_weight_is_used_once_a_position(name, shape, expected):
    assert nets.positions(nets.make(name), shape) == {
        f"{layer}/kernel": n for layer, n in expected.items()
    }
