"""Taylor: keeps the weights whose removal would change the loss most, batch by batch."""

import jax

from jaxtickets.criteria.base import Evidence, in_single, mean_over_batches
from jaxtickets.types import Key, Params, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`mean_b (w · dL_b/dw)²`: to first order, the squared change of batch b's loss without w.

    Molchanov et al., "Importance estimation for neural network pruning", 2019, equation 8, for
    weights. With one batch, it ranks like SNIP. The key feeds dropout and is consumed.

    >>> from jaxtickets import losses
    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["kernel"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> batches = Split(jnp.array([[[1.0, 0.0]]]), jnp.array([[0]]))
    >>> evidence = Evidence(params, params, {}, None, batches, loss, net, lambda images: images)
    >>> score(jax.random.key(0), evidence)["kernel"].tolist()
    [[0.25, 0.25], [0.0, 0.0]]
    """

    evidence = in_single(evidence)

    def saliency(gradient: Params) -> Scores:
        return jax.tree.map(lambda w, g: (w * g) ** 2, evidence.params, gradient)

    return mean_over_batches(key, evidence, saliency)
