"""Bayes by Backprop: a Gaussian posterior over every weight, trained by sampling weights.

Blundell et al., "Weight uncertainty in neural networks", 2015.
"""

import jax
import jax.numpy as jnp

from jaxtickets.gates import mean_field, priors
from jaxtickets.gates.base import Gate, Setting
from jaxtickets.gates.mean_field import MeanField, Score
from jaxtickets.gates.priors import Prior
from jaxtickets.types import Array, Keep, Params, Prunable

PRIOR = priors.gaussian(1.0)
"""The default prior."""
PAPER_PRIOR = priors.scale_mixture(priors.PI[1], priors.SIGMA1[0], priors.SIGMA2[0])
"""The paper's prior, with the first of the values that it chooses among; π = 1/2."""


def gate(
    prunable: Prunable,
    keep: Keep | None,
    floor: Keep,
    setting: Setting,
    prior: Prior = PRIOR,
    deviation: float = 0.01,
    sampling: str = mean_field.WEIGHTS,
    score: Score = mean_field.signal_to_noise,
    threshold: float = 0.0,
) -> Gate:
    """Trains the mean and the deviation of every weight, biases too; see `mean_field.gate`.

    The paper weights the divergence of a batch by one over the number of batches, which is the sum
    over weights divided by the number of examples if the loss is the mean over a batch. It does not
    say where ρ starts.

    Args:
      prunable, keep, floor, setting, sampling, score, threshold: see `mean_field.gate`. With the
        default threshold, `keep` None keeps every weight whose mean is not 0.
      prior: the prior of every weight, around zero.
      deviation: σ of every weight at the start.

    The strength is the weight of the divergence: 1 for Bayes' rule, less for a tempered posterior.
    The optimiser of g must not decay it: a decayed ρ moves σ to log 2.

    Raises:
      ValueError: the deviation is not above 0; or see `mean_field.gate`.

    >>> made = gate(("w",), 1, 0, Setting(steps=10, examples=100), deviation=0.5)
    >>> params = {"w": jnp.array([3.0, -4.0])}
    >>> g = made.init(jax.random.key(0), params)
    >>> [round(float(x), 3) for x in mean_field.deviation(g.rho["w"])]
    [0.5, 0.5]
    >>> made.harden(g, params)["w"].tolist()
    [False, True]
    """
    if not deviation > 0:
        raise ValueError(f"deviation={deviation}: must be above 0")

    def first(params: Params) -> MeanField:
        def leaf(mean: Array) -> jax.Array:
            mean = jnp.asarray(mean)
            return mean_field.rho_of(jnp.full_like(mean, deviation))

        return MeanField(jax.tree.map(leaf, params), ())

    return mean_field.gate(
        first=first,
        prior=prior,
        prunable=prunable,
        keep=keep,
        floor=floor,
        setting=setting,
        sampling=sampling,
        score=score,
        threshold=threshold,
    )
