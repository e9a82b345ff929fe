"""SNIP: keeps the connections whose removal would change the loss most."""

import jax
import jax.numpy as jnp

from jaxtickets.criteria.base import Evidence, gradient, in_single
from jaxtickets.types import Key, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`|dL/dc| / sum |dL/dc|` at c = 1, where c multiplies the weights: `dL/dc = w · dL/dw`.

    L is the mean loss over `evidence.batches`, in training mode, at `evidence.params`. Lee et al.,
    "SNIP: single-shot network pruning", 2019, equations 4 to 6. The paper uses one batch; here the
    gradient is the mean over several. The key feeds dropout and is consumed.

    >>> from jaxtickets import losses
    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["kernel"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> batches = Split(jnp.array([[[1.0, 0.0]]]), jnp.array([[0]]))
    >>> evidence = Evidence(params, params, {}, None, batches, loss, net, lambda images: images)
    >>> score(jax.random.key(0), evidence)["kernel"].tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    evidence = in_single(evidence)
    gradients = gradient(key, evidence)
    saliency = jax.tree.map(lambda w, g: jnp.abs(w * g), evidence.params, gradients)
    total = jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(saliency)]).sum()
    least = jnp.finfo(total.dtype).tiny  # a dead net has scores of zero
    return jax.tree.map(lambda s: s / jnp.maximum(total, least), saliency)
