"""SynFlow: keeps the weights that carry the net's synaptic flow; uses no data."""

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, KeyPath

from jaxtickets import masks
from jaxtickets.criteria.base import Evidence, check_batches, in_single, single
from jaxtickets.losses import NEXT_TOKEN
from jaxtickets.types import Array, Key, Mask, Params, Prunable, Scores, Stats

NEGATIVE = 1e-3
"""The largest share of a leaf's scores that rounding may make negative."""
VANISHED = 1e-5
"""The share of R below which the sum of a kernel's scores is only rounding error."""


def score(key: Key, evidence: Evidence) -> Scores:
    """`|w| · dR/d|w|`, with R the sum of the logits for an image of ones under the weights |w|.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
    flow", 2020, equation 6. SynFlow is an iterative criterion, see `recipes.iterative_pruning`.
    Biases are set to zero and batch statistics to those of white noise, so that R is linear in each
    layer; the paper's code uses |bias|. A leaf of zeros, such as the last scale of a residual
    branch, is replaced by ones where the mask keeps it; otherwise its branch would have no flow.
    Each kernel is divided by the mean over its units of their sums of |w|. This multiplies all
    scores by one factor and prevents overflow in deep nets. The key is not used.

    R must increase with every |w|. It does not with layer norm, attention or a final softmax, where
    the flow through a layer cancels out.

    Raises:
      ValueError: the net reads tokens, a leaf has negative scores, or a kernel of the dense net,
        one of `evidence.prunable`, has only zeros (the last two under tracing: all scores are NaN
        instead).

    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["kernel"], stats))
    >>> params = {"kernel": jnp.array([[1.0, -3.0], [0.0, 0.0]])}
    >>> batches = Split(np.zeros((1, 1, 2)), np.zeros((1, 1), int))
    >>> evidence = Evidence(params, params, {}, None, batches, None, net)
    >>> score(jax.random.key(0), evidence)["kernel"].tolist()
    [[0.5, 1.5], [0.0, 0.0]]
    """
    del key
    evidence = in_single(evidence)
    mask = masks.ones(evidence.params) if evidence.mask is None else evidence.mask

    def positive(path: KeyPath, leaf: Array, kept: Array) -> Array:
        if path[-1] == DictKey("bias"):
            return jnp.zeros_like(leaf)
        size = jnp.abs(leaf)
        size = jnp.where(jnp.any(size > 0), size, jnp.asarray(kept, size.dtype))
        if leaf.ndim < 2:
            return size
        sums = jnp.sum(size) / leaf.shape[-1]
        return size / jnp.maximum(sums, jnp.finfo(leaf.dtype).tiny)

    check_batches(evidence)
    if evidence.task is NEXT_TOKEN:
        raise ValueError(
            "SynFlow gives the net an image of ones, and this net reads tokens; take another "
            "criterion, such as snip"
        )
    ones = jnp.ones((1, *evidence.batches.images.shape[2:]), jnp.float32)

    def flow(params: Params) -> Array:
        logits, _ = evidence.model.apply(params, _white(evidence.stats), ones, None, False)
        return jnp.sum(single(logits))

    weights = jax.tree.map_with_path(positive, evidence.params, mask)
    total, gradients = jax.value_and_grad(flow)(weights)
    scores = jax.tree.map(lambda w, g: w * g, weights, gradients)
    kernels = masks.prunable(weights) if evidence.prunable is None else evidence.prunable
    return _checked(scores, jnp.abs(total), mask, kernels)


def _checked(scores: Scores, total: Array, mask: Mask, kernels: Prunable) -> Scores:
    """The scores, once checked to be those of a flow `total` through `kernels`; see `score`."""
    dense = jnp.stack([jnp.all(leaf) for leaf in jax.tree.leaves(mask)]).all()
    wrong = []
    for path, leaf in zip(masks.paths(scores), jax.tree.leaves(scores), strict=True):
        size, negative = jnp.sum(jnp.abs(leaf)), -jnp.sum(jnp.minimum(leaf, 0))
        none = dense & (size <= VANISHED * total) if path in kernels else False
        wrong.append((negative > NEGATIVE * size) | none)
    unfit = jnp.stack(wrong)
    if isinstance(unfit, jax.core.Tracer):
        return jax.tree.map(lambda leaf: jnp.where(unfit.any(), jnp.nan, leaf), scores)
    if unfit.any():
        path = masks.paths(scores)[int(jnp.argmax(unfit))]
        raise ValueError(
            f"SynFlow can't score this net: the flow through {path} cancels out, as with layer "
            "norm, attention or a softmax; take another criterion, or the net without its softmax"
        )
    return scores


def _white(stats: Stats) -> Stats:
    """Batch statistics of white noise: mean 0 and variance 1."""

    def leaf(path: KeyPath, value: Array) -> Array:
        return jnp.full_like(value, 1.0 if path[-1] == DictKey("var") else 0.0)

    return jax.tree.map_with_path(leaf, stats)
