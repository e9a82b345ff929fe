"""Distributions over the points of a search: what is sampled, and how it is fitted to samples.

Bits are drawn by independent Bernoulli variables, trees of floats by independent normal ones. Over
the potentials of `fields` whose only parts are layers, the latter is a policy over the layers'
shares of the weights, and the mask of each sample keeps exactly the total.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key, PyTree

LEAST = 1e-4
"""The least probability of a bit, and of its opposite, after a fit."""
NARROWEST = 1e-3
"""The least standard deviation after a fit."""


class Distribution(NamedTuple):
    """A distribution over points, as pure functions of its parameters.

    Attributes:
      sample: `sample(key, parameters) -> point`; the key is consumed.
      log_prob: `log_prob(parameters, point) -> scalar`, the log of a probability or of a density.
      fit: `fit(parameters, points, rate) -> parameters`: moves the moments by the share `rate` of
        the way to those of the stacked `points`. With the rate 1 it is maximum likelihood.
    """

    sample: Callable[[Key, PyTree], PyTree]
    log_prob: Callable[[PyTree, PyTree], Array]
    fit: Callable[[PyTree, PyTree, float], PyTree]


class Normal(NamedTuple):
    """The parameters of `normal`: trees like its points.

    Attributes:
      mean: the means.
      log_std: the natural logs of the standard deviations.
    """

    mean: PyTree
    log_std: PyTree


def _sample_bits(key: Key, logits: Array) -> Array:
    return jax.random.bernoulli(key, jax.nn.sigmoid(logits))


def _log_prob_bits(logits: Array, bits: Array) -> Array:
    return jnp.sum(jnp.where(bits, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)))


def _fit_bits(logits: Array, bits: Array, rate: float) -> Array:
    seen = jnp.mean(bits.astype(jnp.float32), axis=0)
    chance = (1 - rate) * jax.nn.sigmoid(logits) + rate * seen
    return jax.scipy.special.logit(jnp.clip(chance, LEAST, 1 - LEAST))


def _sample_normal(key: Key, at: Normal) -> PyTree:
    leaves, treedef = jax.tree.flatten(at.mean)
    keys = jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))
    return jax.tree.map(
        lambda k, mean, log_std: mean + jnp.exp(log_std) * jax.random.normal(k, jnp.shape(mean)),
        keys,
        at.mean,
        at.log_std,
    )


def _log_prob_normal(at: Normal, point: PyTree) -> Array:
    parts = jax.tree.map(
        lambda x, mean, log_std: jnp.sum(
            jax.scipy.stats.norm.logpdf(x, loc=mean, scale=jnp.exp(log_std))
        ),
        point,
        at.mean,
        at.log_std,
    )
    return sum(jax.tree.leaves(parts), jnp.float32(0))


def _fit_normal(at: Normal, points: PyTree, rate: float) -> Normal:
    def mean(old: Array, seen: Array) -> Array:
        return (1 - rate) * old + rate * jnp.mean(seen, axis=0)

    def log_std(old: Array, seen: Array) -> Array:
        std = (1 - rate) * jnp.exp(old) + rate * jnp.std(seen, axis=0)
        return jnp.log(jnp.maximum(std, NARROWEST))

    means = jax.tree.map(mean, at.mean, points)
    return Normal(means, jax.tree.map(log_std, at.log_std, points))


bernoulli = Distribution(_sample_bits, _log_prob_bits, _fit_bits)
"""Independent bits; the parameters are logits, float`[n]`, and the points bool`[n]`."""
normal = Distribution(_sample_normal, _log_prob_normal, _fit_normal)
"""Independent normal variables; the parameters are a `Normal`, and the points trees like its mean.
"""
