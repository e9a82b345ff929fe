"""Searches that learn a distribution: exact gradients, fits by hand, and optima that are known."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxtickets.search import cross_entropy, distribution_search, distributions, policy_gradient
from jaxtickets.search.distributions import Normal, bernoulli, normal

QUICK = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
KEY = jax.random.key(0)
THREE = np.array(list(itertools.product([False, True], repeat=3)))
ENERGIES = np.array([3.0, -1.0, 0.5, 2.0, -4.0, 1.0, 0.0, 5.0])
LOGITS = np.array([0.3, -1.2, 0.8])


def test_the_estimates_mean_over_all_outcomes_is_the_gradient():
    chance = 1 / (1 + np.exp(-LOGITS))
    of_each = np.where(THREE, chance, 1 - chance).prod(1)
    # d E / d logit_i = p_i (1 - p_i) (E[energy | bit i on] - E[energy | bit i off])
    means = [
        [(of_each * ENERGIES)[at].sum() / of_each[at].sum() for at in (THREE[:, i], ~THREE[:, i])]
        for i in range(3)
    ]
    exact = [p * (1 - p) * (on - off) for p, (on, off) in zip(chance, means, strict=True)]
    pairs = np.array(list(itertools.product(range(8), repeat=2)))
    points, energies = jnp.asarray(THREE)[pairs], jnp.asarray(ENERGIES)[pairs]
    estimate = partial(policy_gradient.gradient, bernoulli, jnp.asarray(LOGITS))
    found = np.asarray(QUICK(jax.vmap(estimate))(points, energies))
    weight = of_each[pairs].prod(1)
    np.testing.assert_allclose(weight @ found, exact, rtol=1e-5)
    assert not found[pairs[:, 0] == pairs[:, 1]].any()  # equal outcomes say nothing
    # (1, 0, 0) of energy -4 and (1, 1, 0) of energy 0: only the middle bit differs
    by_hand = ((-4.0 - 0.0) / 2) * np.array([0, (0 - chance[1]) - (1 - chance[1]), 0])
    np.testing.assert_allclose(found[8 * 4 + 6], by_hand, atol=1e-6)


def test_log_probabilities_are_those_of_the_distributions():
    chance = 1 / (1 + np.exp(-LOGITS))
    found = jax.vmap(bernoulli.log_prob, (None, 0))(jnp.asarray(LOGITS), THREE)
    np.testing.assert_allclose(found, stats.bernoulli.logpmf(THREE, chance).sum(1), rtol=1e-5)
    at = Normal({"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}, {"a": jnp.zeros(2), "b": 0.7})
    point = {"a": jnp.array([0.3, 0.1]), "b": jnp.array(2.0)}
    wanted = stats.norm.logpdf([0.3, 0.1, 2.0], [1, -2, 0.5], [1, 1, np.exp(0.7)]).sum()
    np.testing.assert_allclose(normal.log_prob(at, point), wanted, rtol=1e-5)


def test_samples_have_the_distributions_moments():
    keys = jax.random.split(KEY, 20_000)
    bits = jax.vmap(bernoulli.sample, (0, None))(keys, jnp.asarray(LOGITS))
    chance = 1 / (1 + np.exp(-LOGITS))
    assert np.all(np.abs(bits.mean(0) - chance) < 4 * np.sqrt(chance * (1 - chance) / 20_000))
    at = Normal({"a": jnp.array([1.0, -2.0])}, {"a": jnp.array([0.0, 1.0])})
    drawn = np.asarray(jax.vmap(normal.sample, (0, None))(keys, at)["a"])
    stds = np.exp([0, 1])
    assert np.all(np.abs(drawn.mean(0) - [1, -2]) < 4 * stds / np.sqrt(20_000))
    assert np.all(np.abs(drawn.std(0) / stds - 1) < 4 / np.sqrt(40_000))
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / np.sqrt(20_000)


def test_fits_are_by_hand():
    bits = jnp.array([[True, False, True], [True, True, False]])
    # from one half each: 1/2 + 1/2 (1 - 1/2) = 3/4 for the first bit, 1/2 for the others
    found = jax.nn.sigmoid(bernoulli.fit(jnp.zeros(3), bits, 0.5))
    np.testing.assert_allclose(found, [0.75, 0.5, 0.5], rtol=1e-5)
    whole = jax.nn.sigmoid(bernoulli.fit(jnp.zeros(3), bits, 1.0))
    np.testing.assert_allclose(whole, [1 - distributions.LEAST, 0.5, 0.5], rtol=1e-4)
    # the points 1 and 5 have mean 3 and standard deviation 2; 1/4 of the way from 0 and 1
    fitted = normal.fit(Normal(jnp.zeros(1), jnp.zeros(1)), jnp.array([[1.0], [5.0]]), 0.25)
    np.testing.assert_allclose(fitted.mean, [0.75], rtol=1e-6)
    np.testing.assert_allclose(np.exp(fitted.log_std), [1.25], rtol=1e-6)


def test_the_elite_are_the_samples_of_the_lowest_finite_energies():
    points = jnp.array([[False, True], [True, True], [True, False], [False, False]])
    energies = jnp.array([0.1, jnp.nan, 0.3, 0.2])
    one = cross_entropy.update(bernoulli, elite=2, rate=0.5)
    # the first and the last: the first bit is off in both, the second on in one
    logits, memory = one.update(jnp.zeros(2), (), points, energies)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), [0.25, 0.5], rtol=1e-5)
    assert memory == ()


SIX = np.array(list(itertools.product([False, True], repeat=6)))
TABLE = np.random.default_rng(2).standard_normal(64)
POWERS = 2 ** np.arange(6)[::-1]


def of_bits(key, bits):
    return jnp.asarray(TABLE)[jnp.sum(jnp.asarray(POWERS) * bits)]


UPDATES = {
    "policy_gradient": policy_gradient.update(bernoulli, optax.adam(0.2)),
    "cross_entropy": cross_entropy.update(bernoulli, elite=6, rate=0.3),
}


def walked(kernel, first, steps):
    """The ends of four chains of independent keys, and the infos of their steps."""

    @QUICK
    @jax.vmap
    def run(key):
        return jax.lax.scan(
            lambda state, k: kernel.step(k, state), kernel.init(first), jax.random.split(key, steps)
        )

    return run(jax.random.split(KEY, 4))


@pytest.mark.parametrize("name", UPDATES)
def test_chains_find_a_low_point_of_all_64_and_settle_there(name):
    kernel = distribution_search.build(
        bernoulli, UPDATES[name], of_bits, samples=24, likeliest=lambda logits: logits > 0
    )
    state, info = walked(kernel, jnp.zeros(6), 120)
    np.testing.assert_allclose(state.best_energy, TABLE.min(), rtol=1e-6)
    np.testing.assert_array_equal(state.best, np.tile(SIX[TABLE.argmin()], (4, 1)))
    assert np.all(np.diff(info.best_energy, axis=1) <= 0)
    # they settle among the lowest of 64, from the table's mean
    assert np.all(info.energy[:, -1] < np.sort(TABLE)[4]) and np.all(info.energy[:, 0] > -0.6)
    assert np.all(info.spread[:, -1] < 0.5 * info.spread[:, 0])


@pytest.mark.parametrize("name", UPDATES)
def test_a_normal_policy_finds_the_bottom_of_a_bowl(name):
    update = {
        "policy_gradient": policy_gradient.update(normal, optax.adam(0.1)),
        "cross_entropy": cross_entropy.update(normal, elite=6, rate=0.5),
    }[name]

    def bowl(key, point):
        return jnp.sum((point["a"] - jnp.array([2.0, -1.0])) ** 2) + (point["b"] - 0.5) ** 2

    kernel = distribution_search.build(
        normal, update, bowl, samples=24, likeliest=lambda at: at.mean
    )
    zero = {"a": jnp.zeros(2), "b": jnp.float32(0)}
    state, _ = walked(kernel, Normal(zero, zero), 80)
    np.testing.assert_allclose(state.parameters.mean["a"], np.tile([2, -1], (4, 1)), atol=0.25)
    np.testing.assert_allclose(state.parameters.mean["b"], [0.5] * 4, atol=0.25)
    assert np.all(np.exp(state.parameters.log_std["a"]) < 0.5)


def test_the_likeliest_point_is_the_best_where_it_is_better():
    kernel = distribution_search.build(
        bernoulli, UPDATES["cross_entropy"], of_bits, samples=6, likeliest=lambda logits: logits > 0
    )
    state = kernel.init(jnp.where(SIX[TABLE.argmin()], 1.0, -1.0))
    assert np.isinf(state.best_energy) and np.isinf(state.energy)
    there = kernel.try_likeliest(KEY, state)
    assert float(there.best_energy) == pytest.approx(TABLE.min())
    worse = there._replace(parameters=jnp.where(SIX[TABLE.argmax()], 1.0, -1.0))
    assert float(kernel.try_likeliest(KEY, worse).best_energy) == pytest.approx(TABLE.min())


def test_points_are_what_is_made_of_samples():
    def two_bits(key, bits):  # exactly two: more of those that were drawn, at random
        order = jnp.argsort(-(bits + jax.random.uniform(key, bits.shape)))
        return jnp.zeros(6, bool).at[order[:2]].set(True)

    kernel = distribution_search.build(
        bernoulli, UPDATES["cross_entropy"], of_bits, 24, lambda logits: logits > 0, two_bits
    )
    state, _ = walked(kernel, jnp.zeros(6), 30)
    pairs = SIX.sum(1) == 2
    np.testing.assert_allclose(state.best_energy, TABLE[pairs].min(), rtol=1e-6)
    assert np.all(state.best.sum(1) == 2)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="elite=0: must be 1 or more"):
        cross_entropy.update(bernoulli, elite=0)
    with pytest.raises(ValueError, match=r"rate=1.5: must be above 0 and at most 1"):
        cross_entropy.update(bernoulli, elite=1, rate=1.5)
    for update, least in ((UPDATES["policy_gradient"], 2), (UPDATES["cross_entropy"], 6)):
        with pytest.raises(ValueError, match=f"takes {least} or more"):
            distribution_search.build(bernoulli, update, of_bits, least - 1, lambda at: at > 0)
