"""GraSP: keep the weights without which less gradient would flow."""

from typing import Any

import jax

from jaxtickets import losses
from jaxtickets.criteria.base import Evidence, gradient
from jaxtickets.types import Key, Params, Scores, Stats

TEMPERATURE = 200.0


def score(key: Key, evidence: Evidence, temperature: float = TEMPERATURE) -> Scores:
    """`w · (H g)`, with g the gradient and H the Hessian of the mean loss over the batches.

    The square of the gradient's norm changes by `−2 w · (H g)` to first order when w goes. Wang et
    al., "Picking winning tickets before training by preserving gradient flow", 2020, equation 8,
    with the sign turned so that higher is kept. The loss is the cross-entropy, in training mode,
    of the logits divided by a temperature, 200 as in the paper's code: with 1, a net without batch
    norm keeps what makes its logits explode. The key feeds dropout, the same in both derivatives,
    and is consumed.
    """

    def apply(*arguments: Any) -> tuple[jax.Array, Stats]:
        logits, stats = evidence.model.apply(*arguments)
        return logits / temperature, stats

    loss = losses.classification(evidence.model._replace(apply=apply), evidence.prepare)
    evidence = evidence._replace(loss=loss)

    def slope(params: Params) -> Params:
        return gradient(key, evidence._replace(params=params))

    flow = slope(evidence.params)
    product = jax.jvp(slope, (evidence.params,), (flow,))[1]
    return jax.tree.map(lambda w, p: w * p, evidence.params, product)
