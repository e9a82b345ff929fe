"""Taylor: keep the weights whose removal would change the loss most, batch by batch."""

import jax

from jaxtickets.criteria.base import Evidence, in_single, mean_over_batches
from jaxtickets.types import Key, Params, Scores


def score(key: Key, evidence: Evidence) -> Scores:
    """`mean_b (w · dL_b/dw)²`, the squared change of batch b's loss to first order when w goes.

    Molchanov et al., "Importance estimation for neural network pruning", 2019, equation 8, for
    weights; with one batch it ranks as SNIP does. The key feeds dropout and is consumed.
    """

    evidence = in_single(evidence)

    def saliency(slope: Params) -> Scores:
        return jax.tree.map(lambda w, g: (w * g) ** 2, evidence.params, slope)

    return mean_over_batches(key, evidence, saliency)
