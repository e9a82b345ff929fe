"""Bayesian nets: priors, posteriors, the two mean-field gates, predictions and tickets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtickets import gates, losses, masks, optimizers, runs, training
from jaxtickets.dynamic.static import masked
from jaxtickets.gates import bayes_by_backprop, mean_field, moped, priors
from jaxtickets.gates.mean_field import FIXED, MeanField
from jaxtickets.recipes import bayesian
from jaxtickets.types import Gaussian, Model, Split

KEY, OTHER = jax.random.split(jax.random.key(5))
PRUNABLE = ("fc1/kernel", "fc2/kernel", "out/kernel")
SETTING = gates.Setting(steps=10, examples=50)


def normal(x, mean, sigma):
    return np.exp(-((x - mean) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))


def integral(density, mean, sigma):
    """KL(N(mean, sigma²) ‖ density) by the trapezoidal rule, in float64."""
    x = np.linspace(mean - 10 * sigma, mean + 10 * sigma, 200_001)
    q = normal(x, mean, sigma)
    return np.trapezoid(q * (np.log(q + 1e-300) - np.log(density(x) + 1e-300)), x)


# --- priors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "sigma", "width"), [(0.3, 0.2, 1.0), (-2.0, 0.5, 0.7)])
def test_a_gaussian_prior_has_the_integrated_divergence(mean, sigma, width):
    got = priors.gaussian(width)(jnp.float32(mean), jnp.log(sigma), jnp.float32(0))
    assert float(got) == pytest.approx(integral(lambda x: normal(x, 0, width), mean, sigma), 1e-5)


def test_a_scale_mixtures_samples_average_to_the_integrated_divergence():
    mean, sigma, pi, wide, narrow = 0.05, 0.1, 0.25, 1.0, 0.05
    noise = jax.random.normal(KEY, (400_000,))
    prior = priors.scale_mixture(pi, wide, narrow)
    nats = prior(jnp.full_like(noise, mean), jnp.full_like(noise, np.log(sigma)), noise)
    expected = integral(
        lambda x: pi * normal(x, 0, wide) + (1 - pi) * normal(x, 0, narrow), mean, sigma
    )
    error = float(jnp.std(nats)) / len(noise) ** 0.5
    assert float(jnp.mean(nats)) == pytest.approx(expected, abs=4 * error) and error < 0.01


def test_the_papers_prior_and_its_choices():
    assert priors.PI == (0.25, 0.5, 0.75)
    np.testing.assert_allclose(-np.log(priors.SIGMA1), (0, 1, 2))
    np.testing.assert_allclose(-np.log(priors.SIGMA2), (6, 7, 8))
    got = bayes_by_backprop.PAPER_PRIOR(jnp.float32(0), jnp.float32(0), jnp.float32(0))
    # log(q / p) at 0: -log(½ · 1 + ½ · e⁶)
    assert float(got) == pytest.approx(-np.log(0.5 + 0.5 * np.exp(6)), 1e-6)


@pytest.mark.parametrize(
    "prior",
    [
        lambda: priors.gaussian(0.0),
        lambda: priors.scale_mixture(0.5, 1.0, 0.0),
        lambda: priors.scale_mixture(0.5, -1.0, 0.1),
        lambda: priors.scale_mixture(1.0, 1.0, 0.1),
    ],
)
def test_a_prior_without_width_or_share_is_refused(prior):
    with pytest.raises(ValueError, match="must"):
        prior()


def test_a_layers_divergence_is_that_of_torch():
    torch = pytest.importorskip("torch")
    mean, sigma, width = np.float32([0.1, -0.4, 2.0]), np.float32([0.3, 0.01, 1.2]), 0.6
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    expected = float(kl(normal(torch.tensor(mean), torch.tensor(sigma)), normal(0.0, width)).sum())
    g = MeanField({"kernel": mean_field.rho_of(sigma)}, ())
    mean = {"kernel": jnp.asarray(mean)}
    got = mean_field.divergence(priors.gaussian(width), mean, g, mean)
    assert float(got) == pytest.approx(expected, 1e-5)


# --- the posterior -------------------------------------------------------------------------------


def test_deviations_and_their_logarithms_and_the_way_back():
    sigma = np.array([1e-12, 1e-6, 0.01, 0.7, 5.0, 100.0], "f")
    rho = mean_field.rho_of(sigma)
    np.testing.assert_allclose(mean_field.deviation(rho), sigma, rtol=2e-5)
    np.testing.assert_allclose(mean_field.log_deviation(rho), np.log(sigma), rtol=1e-5)
    assert mean_field.rho_of(jnp.float32(0)) == FIXED
    assert mean_field.deviation(jnp.float32(FIXED)) == 0
    slopes = jax.vmap(jax.grad(mean_field.log_deviation))(jnp.array([FIXED, -50.0, -19.99, 0.0]))
    # softplus' / softplus: 1 for a very negative rho, ½ / log 2 at 0
    np.testing.assert_allclose(slopes, [1, 1, 1, 0.5 / np.log(2)], rtol=1e-5)


def test_samples_have_the_posteriors_mean_and_deviation_and_differ_between_leaves():
    mean = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([1.0, -2.0])}
    variance = {"a": jnp.array([0.25, 0.0]), "b": jnp.array([0.25, 4.0])}
    drawn = jax.vmap(lambda key: bayesian.draw(key, Gaussian(mean, variance)))(
        jax.random.split(KEY, 20_000)
    )
    np.testing.assert_allclose(jnp.mean(drawn["b"], 0), [1, -2], atol=4 * 2 / 141)
    np.testing.assert_allclose(jnp.std(drawn["b"], 0), [0.5, 2], rtol=4 * 0.5**0.5 / 141)
    assert (drawn["a"][:, 1] == -2).all()
    assert abs(np.corrcoef(drawn["a"][:, 0], drawn["b"][:, 0])[0, 1]) < 4 / 141


def bayes(keep=None, **options):
    return bayes_by_backprop.gate(PRUNABLE, keep, 0, SETTING, **options)


def test_the_weights_of_a_step_and_its_penalty_by_hand(mlp):
    gate = bayes(prior=priors.gaussian(0.5), deviation=0.1)
    g = gate.init(KEY, mlp)
    keys = jax.random.split(OTHER, 500)
    effective, penalty = jax.jit(
        jax.vmap(lambda key: gate.apply(key, jnp.int32(0), g, mlp, jnp.float32(0.3)))
    )(keys)
    for layer in mlp:
        for name in ("kernel", "bias"):  # every leaf is random
            away = np.asarray(effective[layer][name]) - mlp[layer][name]
            assert np.std(away) == pytest.approx(0.1, 0.1) and abs(away.mean()) < 0.02
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(mlp)])
    nats = np.log(0.5 / 0.1) + (0.01 + flat**2) / (2 * 0.25) - 0.5
    np.testing.assert_allclose(penalty, 0.3 * nats.sum() / 50, rtol=1e-5)


def test_local_sampling_gives_the_same_posterior_and_penalty(mlp):
    drawn, local = (bayes(sampling=how) for how in mean_field.SAMPLING)
    g = drawn.init(KEY, mlp)
    given = OTHER, jnp.int32(0), g, mlp, jnp.float32(1)
    (_, penalty), (gaussian, same) = jax.jit(lambda: (drawn.apply(*given), local.apply(*given)))()
    assert isinstance(gaussian, Gaussian) and penalty == same
    for got, expected in zip(jax.tree.leaves(gaussian.mean), jax.tree.leaves(mlp), strict=True):
        np.testing.assert_array_equal(got, expected)
    for leaf in jax.tree.leaves(gaussian.variance):
        np.testing.assert_allclose(leaf, 1e-4, rtol=1e-4)


def test_moped_starts_at_the_dense_net_and_its_prior_does_not_train(mlp):
    dense = jax.tree.map(np.copy, mlp)
    dense["fc1"]["kernel"][0, 0] = 0
    gate = moped.gate(PRUNABLE, None, 0, SETTING, delta=0.2, width=0.5)
    g = gate.init(KEY, dense)
    sigma = mean_field.deviation(g.rho["fc1"]["kernel"])
    expected = 0.2 * np.abs(dense["fc1"]["kernel"])
    expected[0, 0] = moped.LEAST
    np.testing.assert_allclose(sigma, expected, rtol=1e-5)

    def penalty(g, params):
        return gate.apply(OTHER, jnp.int32(0), g, params, jnp.float32(1))[1]

    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(dense)])
    away = jax.tree.map(lambda w: w + 0.3, dense)
    variance = np.maximum(0.2 * np.abs(flat), moped.LEAST) ** 2
    nats = np.log(0.5) - np.log(variance) / 2 + (variance + 0.09) / 0.5 - 0.5
    np.testing.assert_allclose(jax.jit(penalty)(g, away), nats.sum() / 50, rtol=1e-5)
    slope = jax.jit(jax.grad(penalty))(g, away)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope.centre))
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(slope.rho))

    # signal to noise starts at 1 / 0.2 for all, so that magnitude orders the weights
    ratios = mean_field.scores(mean_field.signal_to_noise, mean_field.posterior(mlp, g))
    np.testing.assert_allclose(ratios["out"]["kernel"], 5, rtol=1e-4)
    hard = moped.gate(PRUNABLE, 7, 0, SETTING).harden(g, mlp)
    largest = masks.select(jax.tree.map(np.abs, mlp), PRUNABLE, 7)
    assert masks.hamming(hard, largest, PRUNABLE) == 0

    # the dense nets can be a batch axis: each has its own prior
    first = jax.jit(lambda net: gate.init(KEY, net))
    both = jax.jit(jax.vmap(first))(runs.stack([dense, mlp]))
    for i, net in enumerate((dense, mlp)):
        got, alone = jax.tree.leaves(runs.take(both, i)), jax.tree.leaves(first(net))
        for x, y in zip(got, alone, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bayes(sampling="flipout"), "unknown sampling 'flipout'"),
        (lambda: bayes(deviation=0.0), "deviation=0.0"),
        (lambda: moped.gate(PRUNABLE, None, 0, SETTING, delta=0.0), "delta=0.0"),
        (lambda: moped.gate(PRUNABLE, None, 0, SETTING, width=0.0), "width=0.0"),
        (lambda: moped.gate(PRUNABLE, None, 0, gates.Setting(10, 0)), "examples=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Bayes by Backprop against an exact posterior ------------------------------------------------


def test_bayes_by_backprop_finds_the_exact_posterior_of_a_linear_gaussian_model():
    # y = X w + noise, Xᵀ X diagonal: the weights are independent a posteriori, with the precision
    # diag(XᵀX) / s² + 1 / width² and the mean Xᵀy / s² over it
    s, width, n = 0.5, 0.7, 8
    hadamard = np.array([[1]])
    for _ in range(3):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    x = (hadamard[:, :4] * np.array([0.2, 0.5, 1.0, 2.0])).astype("f")
    y = np.random.default_rng(2).normal(size=n).astype("f")
    precision = np.sum(x**2, 0) / s**2 + 1 / width**2
    mean = x.T @ y / s**2 / precision

    def of_weights(params, stats, batch, key):
        del key
        nats = jnp.mean((batch.images @ params["w"] - batch.labels) ** 2) / (2 * s**2)
        return nats, (stats, {"loss": nats})

    setting = gates.Setting(steps=4000, examples=n)
    gate = bayes_by_backprop.gate(
        ("w",), None, 0, setting, prior=priors.gaussian(width), deviation=0.1
    )
    trained, stats = gates.start(gate, KEY, {"w": jnp.zeros(4)}, {})
    inner = optax.adam(optax.cosine_decay_schedule(0.03, setting.steps))
    optimizer = masked(inner, masks.ones(trained))
    state = training.init(trained, stats, optimizer)
    batch = Split(jnp.asarray(x), jnp.asarray(y))
    loss = gates.loss(gate, of_weights)
    end, _ = training.advance(
        loss, optimizer, OTHER, state, jnp.arange(setting.steps), lambda key, i: batch
    )
    found = bayesian.posterior(end.params)
    np.testing.assert_allclose(found.variance["w"], 1 / precision, rtol=0.08)
    # in units of the posterior's deviations; the start is 1.4 of them away
    np.testing.assert_allclose((found.mean["w"] - mean) * precision**0.5, 0, atol=0.1)


# --- scores and tickets --------------------------------------------------------------------------


def test_scores_by_hand_and_the_order_that_they_prune_in():
    posterior = Gaussian({"w": jnp.array([3.0, -2.0, 1.0, 0.0])}, {"w": jnp.array([9.0, 1, 0, 0])})
    expected = {
        "signal_to_noise": [1, 2, np.inf, 0],
        "magnitude": [3, 2, 1, 0],
        "root_mean_square": [18**0.5, 5**0.5, 1, 0],
    }
    assert set(expected) == set(mean_field.SCORES)
    for name, values in expected.items():
        score = mean_field.SCORES[name]
        got = mean_field.scores(score, posterior)["w"]
        np.testing.assert_allclose(np.where(got > 1e30, np.inf, got), values, rtol=1e-6)
        kept = bayesian.prune(posterior, ("w",), 2, score=score)["w"]
        np.testing.assert_array_equal(kept, np.argsort(np.argsort(values)) >= 2)


def test_a_gates_own_threshold_and_its_counts_are_of_signal_to_noise(mlp):
    g = bayes().init(KEY, mlp)
    sigma = jax.tree.map(lambda w: 0.1 + np.abs(w[::-1]), mlp)
    g = g._replace(rho=jax.tree.map(mean_field.rho_of, sigma))
    ratio = np.abs(mlp["out"]["kernel"]) / sigma["out"]["kernel"]
    own = bayes(threshold=0.8).harden(g, mlp)
    np.testing.assert_array_equal(own["out"]["kernel"], ratio > 0.8)
    assert masks.count(bayes().harden(g, mlp), PRUNABLE) == 42  # no mean is 0
    posterior = mean_field.posterior(mlp, g)
    for got, expected in zip(
        jax.tree.leaves(bayes(7).harden(g, mlp)),
        jax.tree.leaves(bayesian.prune(posterior, PRUNABLE, 7)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


def test_densities_of_a_pruned_posterior_can_be_a_batch_axis(mlp):
    posterior = mean_field.posterior(mlp, bayes().init(KEY, mlp))
    counts = jnp.array([4, 21, 42])

    @jax.jit
    @jax.vmap
    def pruned(keep):
        mask = bayesian.prune(posterior, PRUNABLE, keep)
        return masks.count(mask, PRUNABLE), bayesian.masked(mask, posterior)

    kept, thin = pruned(counts)
    np.testing.assert_array_equal(kept, counts)
    for part in thin:
        there = sum(np.sum(part[layer]["kernel"] != 0, (1, 2)) for layer in mlp)
        np.testing.assert_array_equal(there, counts)


# --- predictions and training --------------------------------------------------------------------


def apply(params, stats, images, key=None, train=False):
    x = jnp.tanh(images @ params["fc1"]["kernel"] + params["fc1"]["bias"][None])
    x = jnp.tanh(x @ params["fc2"]["kernel"] + params["fc2"]["bias"][None])
    return x @ params["out"]["kernel"] + params["out"]["bias"][None], stats


def prepare(images):
    return images.astype(jnp.float32) / 64 - 2


MODEL = Model(lambda key: None, apply)


def test_predictions_are_those_of_the_drawn_nets(mlp):
    posterior = mean_field.posterior(mlp, bayes(deviation=0.5).init(KEY, mlp))
    images = jnp.linspace(-1, 1, 12).reshape(4, 3)
    got = jax.jit(lambda: bayesian.predict(apply, posterior, {}, images, OTHER, samples=3))()
    assert got.shape == (3, 4, 2)
    for key, probabilities in zip(jax.random.split(OTHER, 3), got, strict=True):
        logits = apply(jax.jit(bayesian.draw)(key, posterior), {}, images)[0]
        np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-5)
    assert (got[0] != got[1]).any()
    with pytest.raises(ValueError, match="samples=0"):
        bayesian.predict(apply, posterior, {}, images, OTHER, samples=0)


@pytest.mark.parametrize("constructor", [bayes_by_backprop.gate, moped.gate])
def test_a_transplanted_mask_stays_exact_through_training(constructor, mlp):
    draw = np.random.default_rng(3)
    images = draw.integers(0, 256, (40, 3)).astype("u1")
    split = Split(jnp.asarray(images), jnp.asarray(images[:, 0] > images[:, 1], jnp.int32))
    recipe = training.Recipe(
        MODEL,
        losses.classification(MODEL, prepare),
        lambda rate: optimizers.optimizer("adam", rate),
        prepare,
        None,
        batch_size=20,
        every=10,
    )
    mask = masks.random(KEY, mlp, PRUNABLE, 10)
    gate = constructor(PRUNABLE, None, 0, SETTING)
    trained, stats = gates.start(gate, KEY, mlp, {})
    over, fill = bayesian.transplant(mask, trained)
    data = training.Splits(split, split)

    @jax.jit
    def run():
        gated, rate = gates.recipe(gate, recipe), jnp.float32(0.02)
        watched, metrics = training.train(
            gated, OTHER, rate, trained, stats, over, data, SETTING.steps, fill=fill
        )
        end = watched.state
        posterior = bayesian.posterior(end.params)
        hard, _ = gates.ticket(gate, end.params, end.stats)
        nats = mean_field.divergence(priors.gaussian(1.0), *end.params, mlp)
        return end.params, metrics, posterior, bayesian.draw(OTHER, posterior), hard, nats

    end, metrics, posterior, drawn, hard, nats = run()
    assert np.isfinite(metrics["train_loss"]).all()
    assert masks.hamming(hard, mask, PRUNABLE) == 0  # no pruned weight is above the threshold
    expected = 0.0
    for m, mean, variance, w, old, rho, centre in zip(
        *map(jax.tree.leaves, (mask, *posterior, drawn, mlp, end.gate.rho)),
        jax.tree.leaves(end.gate.centre) or [np.float32(0)] * 6,
        strict=True,
    ):
        for pruned in (mean, variance, w):
            assert (np.asarray(pruned)[~m] == 0).all()
        assert (np.asarray(variance)[m] > 0).all() and (np.asarray(mean)[m] != old[m]).any()
        sigma = np.log1p(np.exp(np.asarray(rho, float)))[m]
        away = np.asarray(mean - centre, float)[m]
        expected += np.sum(-np.log(sigma) + (sigma**2 + away**2) / 2 - 0.5)
    assert float(nats) == pytest.approx(expected, 1e-4)  # of the kept weights alone


def test_a_mask_that_is_not_like_the_net_cannot_be_transplanted(mlp):
    trained, _ = gates.start(bayes(), KEY, mlp, {})
    with pytest.raises(ValueError, match="no leaf 'fc1/bias'"):
        bayesian.transplant({"fc1": {"kernel": masks.ones(mlp)["fc1"]["kernel"]}}, trained)
