"""SynFlow: keep the weights that carry the net's synaptic flow; no data are looked at."""

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, KeyPath

from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Array, Key, Params, Scores, Stats


def score(key: Key, evidence: Evidence) -> Scores:
    """`|w| · dR/d|w|`, with R the sum of the logits of an image of ones under the weights |w|.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
    flow", 2020, equation 6; to be iterated, as `recipes.iterative_pruning` does. Biases count as
    zero and batch statistics as those of white noise, so that R is linear in each layer; the
    paper's code takes |bias|. Each kernel is divided by the mean of its units' sums of |w|: this
    multiplies all scores by one factor and keeps deep nets from overflowing. The key is not used.
    """
    del key

    def positive(path: KeyPath, leaf: Array) -> Array:
        if path[-1] == DictKey("bias"):
            return jnp.zeros_like(leaf)
        if leaf.ndim < 2:
            return jnp.abs(leaf)
        sums = jnp.sum(jnp.abs(leaf)) / leaf.shape[-1]
        return jnp.abs(leaf) / jnp.maximum(sums, jnp.finfo(leaf.dtype).tiny)

    ones = jnp.ones((1, *evidence.batches.images.shape[2:]), jnp.float32)

    def flow(params: Params) -> Array:
        logits, _ = evidence.model.apply(params, _white(evidence.stats), ones, None, False)
        return jnp.sum(logits)

    weights = jax.tree.map_with_path(positive, evidence.params)
    return jax.tree.map(lambda w, g: w * g, weights, jax.grad(flow)(weights))


def _white(stats: Stats) -> Stats:
    """Batch statistics of mean 0 and variance 1."""

    def leaf(path: KeyPath, value: Array) -> Array:
        return jnp.full_like(value, 1.0 if path[-1] == DictKey("var") else 0.0)

    return jax.tree.map_with_path(leaf, stats)
