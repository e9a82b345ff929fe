"""Optimal brain damage: keeps the weights whose removal would raise the loss, to second order."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxtickets.criteria.base import Evidence, in_single, mean_over_examples, task_of
from jaxtickets.types import Array, Key, Params, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`½ h w²`, with h the diagonal of the Hessian of the mean loss, in evaluation mode.

    LeCun et al., "Optimal brain damage", 1990, equation 5. Exact for nets that are piecewise linear
    in every single weight (ReLU, max-pool), where the diagonal equals that of the Gauss-Newton
    matrix: `h = mean_n Σ_k (dzᵀ/dw v_k)²`, with z the outputs of example n and `Σ_k v_k v_kᵀ` the
    Hessian of its loss in them (`Task.roots`), for classes `diag(p) - p pᵀ` with p the softmax. The
    paper approximates it layer by layer. The key is not used.

    >>> from jaxtickets import losses
    >>> from jaxtickets.types import Model, Split
    >>> net = Model(None, lambda params, stats, images, *_: (images @ params["kernel"], stats))
    >>> loss = losses.classification(net, lambda images: images)
    >>> params = {"kernel": jnp.ones((2, 2))}
    >>> batches = Split(jnp.array([[[1.0, 0.0]]]), jnp.array([[0]]))
    >>> evidence = Evidence(params, params, {}, None, batches, loss, net, lambda images: images)
    >>> np.round(score(jax.random.key(0), evidence)["kernel"], 3).tolist()
    [[0.125, 0.125], [0.0, 0.0]]
    """
    del key
    evidence, task = in_single(evidence), task_of(evidence)

    def curvature(images: Array, labels: Array) -> Params:
        inputs, _ = task.read(evidence.prepare(images), labels)

        def outputs(params: Params) -> Array:
            return evidence.model.apply(params, evidence.stats, inputs, None, False)[0][0]

        found, pull = jax.vjp(outputs, evidence.params)

        def add(total: Params, roots: Array) -> tuple[Params, None]:
            (slopes,) = jax.vmap(pull)(roots)
            return jax.tree.map(lambda a, b: a + jnp.sum(b**2, 0), total, slopes), None

        zero = jax.tree.map(jnp.zeros_like, evidence.params)
        return lax.scan(add, zero, task.roots(found))[0]

    second = mean_over_examples(evidence, curvature)
    return jax.tree.map(lambda w, h: 0.5 * h * w**2, evidence.params, second)
