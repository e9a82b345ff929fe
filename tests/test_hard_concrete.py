"""The hard concrete distribution: its samples, its expected L0, its value at test time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.gates import hard_concrete

LOG_ALPHA = np.linspace(-4, 4, 9)
DRAWS = 20_000


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def drawn():
    """float`[draws, 9]`: gates at each of `LOG_ALPHA`."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    draw = jax.jit(jax.vmap(lambda key: hard_concrete.sample(key, jnp.asarray(LOG_ALPHA, "f"))))
    return np.asarray(draw(keys))


def test_gates_are_not_closed_as_often_as_the_formula_says(drawn):
    # P(z ≠ 0) = P(s > 1/12): logit u > 2/3 log(1/11) - log α
    chance = sigmoid(LOG_ALPHA + 2 / 3 * np.log(11))
    np.testing.assert_allclose(hard_concrete.expected_l0(LOG_ALPHA), chance, rtol=1e-5)
    sigma = np.sqrt(chance * (1 - chance) / DRAWS)
    assert (np.abs((drawn != 0).mean(0) - chance) < 4 * sigma).all()
    # P(z = 1) = P(s > 11/12), the mirror image
    whole = sigmoid(LOG_ALPHA - 2 / 3 * np.log(11))
    sigma = np.sqrt(whole * (1 - whole) / DRAWS)
    assert (np.abs((drawn == 1).mean(0) - whole) < 4 * sigma).all()
    assert (drawn >= 0).all() and (drawn <= 1).all()


def test_the_mean_gate_is_that_of_numerical_integration(drawn):
    u = (np.arange(200_000) + 0.5) / 200_000
    s = sigmoid((np.log(u / (1 - u))[:, None] + LOG_ALPHA) * 1.5)
    z = np.clip(1.2 * s - 0.1, 0, 1)
    sigma = z.std(0) / np.sqrt(DRAWS)
    assert (np.abs(drawn.mean(0) - z.mean(0)) < 4 * sigma).all()


def test_the_slope_of_the_expected_l0_is_that_of_differences():
    slope = jax.vmap(jax.grad(hard_concrete.expected_l0))(jnp.asarray(LOG_ALPHA, "f"))
    ahead, behind = (sigmoid(LOG_ALPHA + by + 2 / 3 * np.log(11)) for by in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-4)


def test_a_concrete_gate_is_above_a_half_as_often_as_its_sigmoid_says():
    keys = jax.random.split(jax.random.key(1), DRAWS)
    gate = jax.jit(jax.vmap(lambda key: hard_concrete.concrete(key, jnp.asarray(LOG_ALPHA, "f"))))
    chance = sigmoid(LOG_ALPHA)
    sigma = np.sqrt(chance * (1 - chance) / DRAWS)
    assert (np.abs((np.asarray(gate(keys)) > 0.5).mean(0) - chance) < 4 * sigma).all()


def test_gates_at_test_time_by_hand():
    # σ(0) = 1/2 -> 1/2; σ = 1/12 and 11/12 are the ends; σ = 3/4 -> 0.9 - 0.1
    at = np.array([0, -np.log(11) - 0.01, np.log(11) + 0.01, np.log(3), -9], "f")
    z = hard_concrete.at_test_time(at)
    np.testing.assert_allclose(z, [0.5, 0, 1, 0.8, 0], rtol=1e-5)
    assert z[1] == 0 and z[2] == 1
    assert hard_concrete.at_test_time(np.float32(-np.log(11) + 0.01)) > 0


def test_first_values_are_normal_about_the_logit():
    first = hard_concrete.initial(jax.random.key(2), jnp.zeros(10_000), 0.2)
    assert abs(first.mean() - np.log(4)) < 4e-4 and abs(first.std() - 0.01) < 4e-4
    with pytest.raises(ValueError, match=r"dropped=1.0: must be above 0 and below 1"):
        hard_concrete.initial(jax.random.key(2), jnp.zeros(3), 1.0)
