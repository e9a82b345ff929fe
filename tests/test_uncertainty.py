"""Uncertainty of predictions: values worked by hand, and scikit-learn's where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtickets.analysis import uncertainty

P = np.array([[0.75, 0.25], [0.35, 0.65], [0.6, 0.4], [1.0, 0.0]], "f")
Y = np.array([0, 0, 0, 0], "i")


def test_entropy_of_certain_and_of_uniform_predictions():
    p = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]], "f")
    np.testing.assert_allclose(
        uncertainty.entropy(p), [0, np.log(4), np.log(2)], rtol=1e-6, atol=1e-7
    )
    assert np.isfinite(jax.grad(lambda p: uncertainty.entropy(p).sum())(p)).all()


def test_mutual_information_of_samples_that_agree_and_that_do_not():
    same = np.repeat(P[None], 4, 0)
    np.testing.assert_allclose(uncertainty.mutual_information(same), 0, atol=1e-7)
    np.testing.assert_allclose(
        uncertainty.predictive_entropy(same), uncertainty.entropy(P), atol=1e-6
    )
    # two samples, each certain of another class: all of log 2 is the model's own uncertainty
    apart = np.array([[[1, 0]], [[0, 1]]], "f")
    np.testing.assert_allclose(uncertainty.mean_probabilities(apart), [[0.5, 0.5]])
    np.testing.assert_allclose(uncertainty.mutual_information(apart), [np.log(2)], rtol=1e-6)


def test_likelihood_and_brier_score_by_hand():
    expected = -np.log([0.75, 0.35, 0.6, 1.0]).mean()
    assert float(uncertainty.negative_log_likelihood(P, Y)) == pytest.approx(expected, 1e-6)
    # twice the squares of 0.25, 0.65, 0.4 and 0
    squares = 2 * (0.0625 + 0.4225 + 0.16) / 4
    assert float(uncertainty.brier(P, Y)) == pytest.approx(squares, 1e-6)
    assert uncertainty.negative_log_likelihood(P[3:], Y[3:] + 1) == np.inf


def test_reliability_and_its_error_by_hand():
    # the confidences 0.75, 0.65, 0.6 and 1 in the bins (0.5, 0.75] and (0.75, 1] of four
    curve = uncertainty.reliability(P, Y, bins=4)
    np.testing.assert_array_equal(curve.count, [0, 0, 3, 1])
    np.testing.assert_allclose(curve.confidence, [np.nan, np.nan, 2 / 3, 1], rtol=1e-6)
    np.testing.assert_allclose(curve.accuracy, [np.nan, np.nan, 2 / 3, 1], rtol=1e-6)
    assert float(uncertainty.calibration_error(curve)) == pytest.approx(0, abs=1e-6)
    # each in its own bin of fifteen, but for 0.6, which ends the ninth: (0.25 + 0.65 + 0.4 + 0) / 4
    fine = uncertainty.reliability(P, Y)
    np.testing.assert_array_equal(np.flatnonzero(fine.count), [8, 9, 11, 14])
    assert float(uncertainty.calibration_error(fine)) == pytest.approx(1.3 / 4, 1e-5)
    with pytest.raises(ValueError, match="bins=0"):
        uncertainty.reliability(P, Y, bins=0)


def test_auroc_counts_pairs_and_half_of_the_ties():
    inside, outside = np.array([0.1, 0.4, 0.4], "f"), np.array([0.4, 0.2, 0.9], "f")
    # above: 1 + 1 + 3 of nine pairs; equal: 2
    assert float(uncertainty.auroc(inside, outside)) == pytest.approx((5 + 2 / 2) / 9, 1e-6)
    assert uncertainty.auroc(inside, inside) == 0.5
    assert uncertainty.auroc(inside, inside + 1) == 1
    with pytest.raises(ValueError, match="outside: there is none"):
        uncertainty.auroc(inside, outside[:0])


def test_rejection_drops_the_most_uncertain_first():
    unsure = np.array([0.2, 0.9, 0.5, 0.1], "f")  # the second, the only wrong one, goes first
    got = uncertainty.rejection(unsure, P, Y)
    np.testing.assert_allclose(got, [0.75, 1, 1, 1])
    np.testing.assert_allclose(uncertainty.rejection(-unsure, P, Y), [3 / 4, 2 / 3, 1 / 2, 0])


def test_labels_that_are_no_class_are_refused():
    for measure in (
        uncertainty.brier,
        uncertainty.negative_log_likelihood,
        uncertainty.reliability,
    ):
        with pytest.raises(ValueError, match="a label is 2"):
            measure(P, Y + 2)


def test_measures_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(4)
    p = draw.dirichlet(np.ones(3), 200).astype("f")
    y = draw.integers(0, 3, 200).astype("i")
    got = float(uncertainty.negative_log_likelihood(p, y))
    assert got == pytest.approx(metrics.log_loss(y, p / p.sum(1, keepdims=True)), 1e-5)
    scores = np.round(draw.normal(size=(2, 100)), 1).astype("f")  # with ties
    got = float(uncertainty.auroc(*jnp.asarray(scores)))
    truth = np.repeat([0, 1], 100)
    assert got == pytest.approx(metrics.roc_auc_score(truth, scores.ravel()), 1e-5)
