"""GraSP: keep the weights without which less gradient would flow."""

import jax

from jaxtickets.criteria.base import Evidence, gradient
from jaxtickets.types import Key, Params, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`w · (H g)`, with g the gradient and H the Hessian of the mean loss over the batches.

    The square of the gradient's norm changes by `−2 w · (H g)` to first order when w goes. Wang et
    al., "Picking winning tickets before training by preserving gradient flow", 2020, equation 8,
    with the sign turned so that higher is kept. The paper's code divides the logits by 200 before
    the loss; here the loss is the training's. The key feeds dropout, the same in both
    derivatives, and is consumed.
    """

    def slope(params: Params) -> Params:
        return gradient(key, evidence._replace(params=params))

    flow = slope(evidence.params)
    product = jax.jvp(slope, (evidence.params,), (flow,))[1]
    return jax.tree.map(lambda w, p: w * p, evidence.params, product)
