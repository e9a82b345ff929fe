"""What is measured of a classifier: test data, another data set's images, shifted test images."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import data, losses
from jaxtickets.analysis import uncertainty
from jaxtickets.analysis.uncertainty import Reliability
from jaxtickets.data import shifts
from jaxtickets.recipes import bayesian
from jaxtickets.training import Recipe
from jaxtickets.types import Array, Dataset, Gaussian, Key, Split, Stats

BATCH = 500
"""The most images that the sampled nets see at once."""
BINS = 24
"""Bins of a histogram of entropies."""
REJECTED = np.round(np.arange(0, 1, 0.05), 2)
"""Shares of the test images that are rejected."""


class Tested(NamedTuple):
    """The measures of one net, all float scalars but for the last four.

    Attributes:
      accuracy, nll, ece, brier: of the mean probabilities, on test data.
      entropy, mutual_information: their means over the test images, in nats.
      other_entropy: the mean predictive entropy of the other images, in nats.
      auroc: how well the entropy tells the other images from the test images.
      reliability: see `uncertainty.Reliability`.
      rejection: float`[len(REJECTED)]`, the accuracy on what is left.
      inside, outside: float`[BINS]`, the shares of test and of other images by their entropy.
    """

    accuracy: Array
    nll: Array
    ece: Array
    brier: Array
    entropy: Array
    mutual_information: Array
    other_entropy: Array
    auroc: Array
    reliability: Reliability
    rejection: Array
    inside: Array
    outside: Array


class Shifted(NamedTuple):
    """Accuracy and mean predictive entropy on shifted test images.

    Attributes:
      rotated_accuracy, rotated_entropy: float`[angles]`.
      noisy_accuracy, noisy_entropy: float`[noise levels]`.
    """

    rotated_accuracy: Array
    rotated_entropy: Array
    noisy_accuracy: Array
    noisy_entropy: Array


class Classifier(NamedTuple):
    """A net, or random nets, that predict; with a leading axis for several.

    Attributes:
      posterior: the weights.
      stats: the net's statistics.
      key: for the weights that are drawn, and for noise; consumed by each measure.
    """

    posterior: Gaussian
    stats: Stats
    key: Key


def probabilities(recipe: Recipe, samples: int, classifier: Classifier, images: Array) -> jax.Array:
    """float`[samples, n, classes]`: see `bayesian.predict`; some images at a time.

    Args:
      recipe: of the net itself: its model and `prepare` are used.
      samples: the number of nets that are drawn.
      classifier: the nets. Its key draws the same nets for all images.
      images: `[n, h, w, c]`, of pixels from 0 to 255.
    """
    n = images.shape[0]
    size = max(d for d in range(1, min(n, BATCH) + 1) if n % d == 0)

    def part(images: Array) -> jax.Array:
        return bayesian.predict(
            recipe.model.apply,
            classifier.posterior,
            classifier.stats,
            recipe.prepare(images),
            classifier.key,
            samples,
        )

    parts = jax.lax.map(part, images.reshape(n // size, size, *images.shape[1:]))
    return jnp.moveaxis(parts, 0, 1).reshape(samples, n, -1)


def tested(
    recipe: Recipe, samples: int, classifier: Classifier, test: Split, other: Array
) -> Tested:
    """All measures on test data and on `other` images; the classifier's key is consumed."""
    drawn = probabilities(recipe, samples, classifier, test.images)
    foreign = probabilities(recipe, samples, classifier, other)
    mean = uncertainty.mean_probabilities(drawn)
    inside, outside = map(uncertainty.predictive_entropy, (drawn, foreign))
    curve = uncertainty.reliability(mean, test.labels)
    rejection = uncertainty.rejection(inside, mean, test.labels)
    share = partial(_histogram, most=float(np.log(mean.shape[-1])))
    return Tested(
        accuracy=losses.accuracy(mean, test.labels),
        nll=uncertainty.negative_log_likelihood(jnp.maximum(mean, LEAST), test.labels),
        ece=uncertainty.calibration_error(curve),
        brier=uncertainty.brier(mean, test.labels),
        entropy=jnp.mean(inside),
        mutual_information=jnp.mean(uncertainty.mutual_information(drawn)),
        other_entropy=jnp.mean(outside),
        auroc=uncertainty.auroc(inside, outside),
        reliability=curve,
        rejection=rejection[(REJECTED * len(test.labels)).astype(int)],
        inside=share(inside),
        outside=share(outside),
    )


LEAST = 1e-30
"""Probabilities that underflow to 0 count as this in the likelihood."""


def _histogram(values: Array, most: float) -> jax.Array:
    """float`[BINS]`: the shares of values in equal bins from 0 to `most`."""
    counts, _ = jnp.histogram(jnp.clip(values, 0, most), BINS, (0, most))
    return counts / values.shape[0]


def shifted(
    recipe: Recipe,
    samples: int,
    classifier: Classifier,
    test: Split,
    angles: Array,
    noises: Array,
) -> Shifted:
    """Measures on rotated and on noisy test images; the classifier's key is consumed.

    Args:
      recipe, samples, classifier: see `probabilities`.
      test: the test data.
      angles: float`[k]`, in degrees.
      noises: float`[m]`, standard deviations in units of the range of a pixel.
    """
    draw_key, noise_key = jax.random.split(classifier.key)
    drawing = classifier._replace(key=draw_key)

    def of(change: Callable[[Array], Array]) -> Callable[[Array], tuple[Array, Array]]:
        def measure(amount: Array) -> tuple[Array, Array]:
            mean = jnp.mean(probabilities(recipe, samples, drawing, change(amount)), 0)
            return losses.accuracy(mean, test.labels), jnp.mean(uncertainty.entropy(mean))

        return measure

    rotated = jax.lax.map(of(lambda angle: shifts.rotate(test.images, angle)), angles)
    noisy = jax.lax.map(of(lambda amount: shifts.noisy(noise_key, test.images, amount)), noises)
    return Shifted(
        rotated_accuracy=rotated[0],
        rotated_entropy=rotated[1],
        noisy_accuracy=noisy[0],
        noisy_entropy=noisy[1],
    )


INVERTED, NOISE = "inverted", "noise"


def _inverted(test: Split, key: Key) -> jax.Array:
    del key
    return shifts.inverted(jnp.asarray(test.images))


def _uniform(test: Split, key: Key) -> jax.Array:
    return jax.random.randint(key, test.images.shape, 0, 256).astype(jnp.uint8)


MADE: dict[str, Callable[[Split, Key], jax.Array]] = {INVERTED: _inverted, NOISE: _uniform}
"""Name -> images in the place of another data set's, made from the test images, or at random."""
OTHERS = (*MADE, *data.NAMES)


def other_images(name: str, dataset: Dataset, key: Key, data_dir: str) -> jax.Array:
    """uint8`[n, h, w, c]`: images of another data set's test data, or those of `MADE`.

    Args:
      name: one of `OTHERS`.
      dataset: the net's own data.
      key: for images at random; consumed.
      data_dir: the folder of prepared TFDS data; empty for TFDS's default.

    Raises:
      DataError: the data set isn't there or is damaged.
    """
    if name in MADE:
        return MADE[name](dataset.test, key)
    return jnp.asarray(data.load(name, data_dir or None).test.images)
