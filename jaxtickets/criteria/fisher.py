"""Fisher: keeps the weights on which the losses of single examples depend."""

import jax
import jax.numpy as jnp

from jaxtickets.criteria.base import (
    Evidence,
    evaluation_loss,
    in_single,
    loss_gradient,
    mean_over_examples,
)
from jaxtickets.types import Array, Key, Params, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`½ w² · mean_n (dL_n/dw)²`, with L_n the loss of example n in evaluation mode.

    The mean is the diagonal of the empirical Fisher information. Theis et al., "Faster gaze
    prediction with dense networks and Fisher pruning", 2018, equation 9, for weights. The key is
    not used.

    >>> from jaxtickets import losses
    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["kernel"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> batches = Split(jnp.array([[[1.0, 0.0]]]), jnp.array([[0]]))
    >>> evidence = Evidence(params, params, {}, None, batches, loss, net, lambda images: images)
    >>> score(jax.random.key(0), evidence)["kernel"].tolist()
    [[0.125, 0.125], [0.0, 0.0]]
    """
    del key
    evidence = in_single(evidence)

    def squared(images: Array, labels: Array) -> Params:
        def loss(params: Params) -> Array:
            return evaluation_loss(evidence, params, images, labels)

        return jax.tree.map(jnp.square, loss_gradient(loss, evidence.params))

    information = mean_over_examples(evidence, squared)
    return jax.tree.map(lambda w, f: 0.5 * w**2 * f, evidence.params, information)
