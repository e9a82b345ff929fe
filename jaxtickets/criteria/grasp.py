"""GraSP: keeps the weights whose removal would reduce the gradient flow."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxtickets import losses, masks
from jaxtickets.criteria.base import LOSS_SCALE, Evidence, gradient, in_single, task_of
from jaxtickets.types import Key, Params, Scores, Stats

TEMPERATURE = 200.0


def score(key: Key, evidence: Evidence, temperature: float = TEMPERATURE) -> Scores:
    """`w · (H g)`, with g the gradient and H the Hessian of the mean loss over the batches.

    g is the gradient in the kernels, `evidence.prunable`, and zero elsewhere: as in the paper's
    code, biases and norms are not part of the flow. To first order, removing w changes the square
    of its norm by `−2 w · (H g)`. Wang et al., "Picking winning tickets before training by
    preserving gradient flow", 2020, equation 8, with the opposite sign, so that higher scores are
    kept. The loss is that of the task, in training mode, of the outputs divided by a temperature,
    200 as in the paper's code. At a temperature of 1, a net without batch norm would keep the
    weights that make its logits explode. The key feeds dropout, the same in both derivatives, and
    is consumed.

    Raises:
      ValueError: `evidence.prunable` is None and no leaf is a kernel by `masks.prunable`.

    >>> from jaxtickets import losses
    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["kernel"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> batches = Split(jnp.array([[[1.0, 0.0]]]), jnp.array([[0]]))
    >>> evidence = Evidence(params, params, {}, None, batches, loss, net, lambda images: images)
    >>> score(jax.random.key(0), evidence, temperature=1.0)["kernel"].tolist()
    [[-0.25, 0.25], [0.0, 0.0]]
    """
    evidence = in_single(evidence)
    kernels = evidence.prunable
    if kernels is None:
        kernels = masks.prunable(evidence.params)

    def apply(*arguments: Any) -> tuple[jax.Array, Stats]:
        logits, stats = evidence.model.apply(*arguments)
        return logits / temperature, stats

    warm = evidence.model._replace(apply=apply)
    loss = losses.of_task(task_of(evidence), warm, evidence.prepare)
    evidence = evidence._replace(loss=loss)

    def flow(params: Params) -> Params:
        return gradient(key, evidence._replace(params=params))

    zero = jax.tree.map(jnp.zeros_like, evidence.params)
    gradients = masks.pick(flow(evidence.params), kernels)
    along = masks.put(zero, kernels, [leaf * LOSS_SCALE for leaf in gradients])
    product = jax.jvp(flow, (evidence.params,), (along,))[1]
    return jax.tree.map(lambda w, p: w * (p / LOSS_SCALE), evidence.params, product)
