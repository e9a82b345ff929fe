"""Optimal brain damage: keeps the weights whose removal would raise the loss, to second order."""

import jax
import jax.numpy as jnp

from jaxtickets.criteria.base import Evidence, in_single, mean_over_examples
from jaxtickets.types import Array, Key, Params, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`½ h w²`, with h the diagonal of the Hessian of the mean cross-entropy, in evaluation mode.

    LeCun et al., "Optimal brain damage", 1990, equation 5. Exact for nets that are piecewise linear
    in every single weight (ReLU, max-pool), where the diagonal equals that of the Gauss–Newton
    matrix: with J_c the gradient of logit c and p the softmax, `h = mean_n [Σ_c p_c J_c² − (Σ_c p_c
    J_c)²]`. The paper approximates it layer by layer. The key is not used.

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

    def curvature(images: Array, labels: Array) -> Params:
        del labels

        def logits(params: Params) -> Array:
            inputs = evidence.prepare(images)
            return evidence.model.apply(params, evidence.stats, inputs, None, False)[0][0]

        p = jax.nn.softmax(logits(evidence.params))

        def diagonal(gradients: Array) -> Array:
            return jnp.tensordot(p, gradients**2, 1) - jnp.tensordot(p, gradients, 1) ** 2

        return jax.tree.map(diagonal, jax.jacrev(logits)(evidence.params))

    second = mean_over_examples(evidence, curvature)
    return jax.tree.map(lambda w, h: 0.5 * h * w**2, evidence.params, second)
