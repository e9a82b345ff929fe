"""How well a classifier knows what it does not know: entropies, calibration, rejection.

Probabilities of S nets drawn from a posterior are `[samples, n, classes]`, and those of one net, or
the mean over samples, `[n, classes]`. Entropies and likelihoods are in nats. Accuracy is
`losses.accuracy`, which takes probabilities in the place of logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import losses
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array

BINS = 15
"""The number of bins of Guo et al., 2017."""


def mean_probabilities(probabilities: Array) -> jax.Array:
    """float`[n, classes]`: the mean over samples of `probabilities[samples, n, classes]`.

    >>> mean_probabilities(np.array([[[1.0, 0.0]], [[0.5, 0.5]]])).tolist()
    [[0.75, 0.25]]
    """
    check_array("the probabilities", probabilities, ("samples", "n", "classes"), float)
    return jnp.mean(probabilities, 0)


def entropy(probabilities: Array) -> jax.Array:
    """`−Σ_c p_c log p_c` of `probabilities[..., classes]`, float`[...]`: 0 to log(classes).

    >>> bits = entropy(np.array([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])) / np.log(2)
    >>> [round(float(bit), 3) for bit in bits]
    [1.0, 2.0]
    """
    there = probabilities > 0
    return -jnp.sum(probabilities * jnp.log(jnp.where(there, probabilities, 1.0)), -1)


def predictive_entropy(probabilities: Array) -> jax.Array:
    """float`[n]`: the entropy of the mean of `probabilities[samples, n, classes]`.

    >>> samples = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two nets disagree on one image
    >>> round(float(predictive_entropy(samples)[0]), 3)
    0.693
    """
    return entropy(mean_probabilities(probabilities))


def mutual_information(probabilities: Array) -> jax.Array:
    """float`[n]`: the predictive entropy minus the mean entropy of the samples.

    It is what the weights would tell about the label, or the part of the uncertainty that is the
    model's own: 0 where all samples agree. Houlsby et al., "Bayesian active learning for
    classification and preference learning", 2011. Rounding can make it slightly negative.

    Args:
      probabilities: float`[samples, n, classes]`.

    >>> disagree, unsure = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.full((2, 1, 2), 0.5)
    >>> [round(float(mutual_information(samples)[0]), 3) for samples in (disagree, unsure)]
    [0.693, 0.0]
    """
    return predictive_entropy(probabilities) - jnp.mean(entropy(probabilities), 0)


def negative_log_likelihood(probabilities: Array, labels: Array) -> jax.Array:
    """`mean(−log p_label)` of `probabilities[n, classes]`; infinite if a label has probability 0.

    Raises:
      ValueError: probabilities or labels have another shape or type, or a label is not one of the
        classes (the latter is not detected under tracing).

    >>> probabilities = np.array([[0.5, 0.5], [0.25, 0.75]])
    >>> round(float(negative_log_likelihood(probabilities, np.array([0, 0]))), 3)
    1.04
    """
    _check(probabilities, labels)
    return -jnp.mean(jnp.log(jnp.take_along_axis(probabilities, labels[:, None], -1)))


def brier(probabilities: Array, labels: Array) -> jax.Array:
    """`mean(Σ_c (p_c − [c = label])²)` of `probabilities[n, classes]`: 0 to 2.

    Brier, "Verification of forecasts expressed in terms of probability", 1950, summed over classes.

    Raises:
      ValueError: as in `negative_log_likelihood`.

    >>> float(brier(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0])))
    0.25
    """
    _check(probabilities, labels)
    kind = jnp.result_type(probabilities)  # as JAX holds them: numpy's are often float64
    truth = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=kind)
    return jnp.mean(jnp.sum((probabilities - truth) ** 2, -1))


class Reliability(NamedTuple):
    """A reliability curve: examples in bins of equal width of their confidence.

    Attributes:
      count: int`[bins]`, the number of examples in each bin.
      confidence: float`[bins]`, the mean confidence in each bin; NaN in an empty one.
      accuracy: float`[bins]`, the share of correct predictions in each bin; NaN in an empty one.
    """

    count: Array
    confidence: Array
    accuracy: Array


def reliability(probabilities: Array, labels: Array, bins: int = BINS) -> Reliability:
    """The reliability curve of `probabilities[n, classes]`.

    The confidence of a prediction is its highest probability. Bin m of M holds the confidences in
    `((m − 1) / M, m / M]`.

    Raises:
      ValueError: there is no bin; or as in `negative_log_likelihood`.

    >>> probabilities = np.array([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5]])
    >>> curve = reliability(probabilities, np.array([0, 1, 0]), bins=2)
    >>> curve.count.tolist(), curve.confidence.tolist(), curve.accuracy.tolist()
    ([1, 2], [0.5, 0.75], [1.0, 0.5])
    """
    if bins < 1:
        raise ValueError(f"bins={bins}: must be 1 or more")
    hits = _hits(probabilities, labels)
    confidence = jnp.max(probabilities, -1)
    edges = jnp.arange(1, bins, dtype=confidence.dtype) / bins
    bin_of = jnp.searchsorted(edges, confidence, side="left")

    def total(values: Array) -> jax.Array:
        return jax.ops.segment_sum(values, bin_of, bins)

    count = total(jnp.ones_like(bin_of))
    size = count.astype(confidence.dtype)
    return Reliability(count, total(confidence) / size, total(hits.astype(size.dtype)) / size)


def calibration_error(curve: Reliability) -> jax.Array:
    """The expected calibration error: `Σ_m count_m / n · |accuracy_m − confidence_m|`.

    Guo et al., "On calibration of modern neural networks", 2017, equation 5.

    >>> curve = Reliability(np.array([0, 4]), np.array([np.nan, 0.75]), np.array([np.nan, 0.5]))
    >>> float(calibration_error(curve))
    0.25
    """
    gaps = jnp.where(curve.count > 0, jnp.abs(curve.accuracy - curve.confidence), 0.0)
    return jnp.sum(curve.count * gaps) / jnp.sum(curve.count)


def auroc(inside: Array, outside: Array) -> jax.Array:
    """The area under the ROC curve of a score that should be higher for `outside` than `inside`.

    It is the probability that a random value of `outside` is above a random one of `inside`, where
    equal values count half: 1/2 by chance.

    Args:
      inside: float`[n]`, such as the predictive entropies of test images.
      outside: float`[m]`, such as those of another data set's images.

    Raises:
      ValueError: an argument has another shape or type, or is empty.

    >>> float(auroc(np.array([0.1, 0.5]), np.array([0.4, 0.9])))
    0.75
    """
    for name, values in (("inside", inside), ("outside", outside)):
        check_array(f"the scores {name}", values, ("n",), float)
        if not values.shape[0]:
            raise ValueError(f"the scores {name}: there is none")
    ranked = jnp.sort(inside)
    below = jnp.searchsorted(ranked, outside, side="left")
    not_above = jnp.searchsorted(ranked, outside, side="right")
    return jnp.mean((below + not_above) / (2 * inside.shape[0]))


def rejection(uncertainty: Array, probabilities: Array, labels: Array) -> jax.Array:
    """float`[n]`: entry k is the accuracy on the examples left after rejecting k of them.

    The most uncertain are rejected first; of equals, the last.

    Args:
      uncertainty: float`[n]`, such as predictive entropies.
      probabilities: float`[n, classes]`.
      labels: int`[n]`.

    Raises:
      ValueError: as in `negative_log_likelihood`, or the uncertainty has another shape.

    >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2]])
    >>> uncertainty = np.array([0.1, 0.6, 0.3])
    >>> accuracies = rejection(uncertainty, probabilities, np.array([0, 1, 0]))
    >>> [round(float(accuracy), 3) for accuracy in accuracies]
    [0.667, 1.0, 1.0]
    """
    hits = _hits(probabilities, labels)
    check_array("the uncertainty", uncertainty, hits.shape, float)
    right = jnp.cumsum(hits[jnp.argsort(uncertainty)])  # a stable sort
    return (right / jnp.arange(1, len(hits) + 1))[::-1]


def _check(probabilities: Array, labels: Array) -> None:
    check_array("the probabilities", probabilities, ("n", "classes"), float)
    check_array("the labels", labels, probabilities.shape[:1], int)
    losses.check_labels(labels, probabilities.shape[-1])


def _hits(probabilities: Array, labels: Array) -> jax.Array:
    _check(probabilities, labels)
    return jnp.argmax(probabilities, -1) == labels
