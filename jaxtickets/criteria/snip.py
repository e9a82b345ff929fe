"""SNIP: keep the connections whose removal would change the loss most."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.criteria.base import Evidence
from jaxtickets.types import Key, Scores, Split


def score(key: Key, evidence: Evidence) -> Scores:
    """`|dL/dc| / sum |dL/dc|` at c = 1, where c multiplies the weights: `dL/dc = w · dL/dw`.

    L is the mean loss over `evidence.batches`, in training mode, at `evidence.params`. Lee et al.,
    "SNIP: single-shot network pruning", 2019, equations 4 to 6; the paper takes one batch, here
    the gradient is the mean over several. The key feeds dropout and is consumed.
    """
    keys = jax.random.split(key, jax.tree.leaves(evidence.batches)[0].shape[0])

    def add(total: Scores, element: tuple[Key, Split]) -> tuple[Scores, None]:
        k, batch = element
        gradient = jax.grad(evidence.loss, has_aux=True)(evidence.params, evidence.stats, batch, k)
        return jax.tree.map(jnp.add, total, gradient[0]), None

    zero = jax.tree.map(jnp.zeros_like, evidence.params)
    gradient, _ = lax.scan(add, zero, (keys, evidence.batches))
    saliency = jax.tree.map(lambda w, g: jnp.abs(w * g), evidence.params, gradient)
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(saliency))
    return jax.tree.map(lambda s: s / total, saliency)
