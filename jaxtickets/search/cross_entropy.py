"""The cross-entropy method: the distribution is fitted to the best of its own samples.

With the moments μ of a distribution (the probabilities of bits, or means and standard deviations),
and those of the elite, the samples of the lowest energies,

    μ <- (1 - rate) μ + rate μ_elite

Rubinstein, "The cross-entropy method for combinatorial and continuous optimization", 1999; smoothed
as in de Boer, Kroese, Mannor and Rubinstein, "A tutorial on the cross-entropy method", 2005. Here
probabilities and standard deviations have a least value, so that no sample becomes impossible.
"""

import jax
import jax.numpy as jnp

from jaxtickets.search.distribution_search import Update
from jaxtickets.search.distributions import Distribution
from jaxtickets.types import Array, PyTree


def update(distribution: Distribution, elite: int, rate: float = 0.7) -> Update:
    """Fits the distribution to the `elite` samples of the lowest energies; it has no memory.

    Args:
      distribution: what is sampled.
      elite: the number of samples that are fitted, 1 or more; non-finite energies come last.
      rate: the share of the way to the elite's moments, in (0, 1].

    Raises:
      ValueError: the elite is empty, or the rate is outside (0, 1].

    >>> from jaxtickets.search.distributions import bernoulli
    >>> best_two = update(bernoulli, elite=2, rate=1.0)
    >>> points = jnp.array([[True, True], [True, False], [False, True]])
    >>> logits, _ = best_two.update(jnp.zeros(2), (), points, jnp.array([0.1, 0.2, 0.9]))
    >>> [round(chance, 4) for chance in jax.nn.sigmoid(logits).tolist()]
    [0.9999, 0.5]
    """
    if elite < 1:
        raise ValueError(f"elite={elite}: must be 1 or more")
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate}: must be above 0 and at most 1")

    def fit(
        parameters: PyTree, memory: PyTree, points: PyTree, energies: Array
    ) -> tuple[PyTree, PyTree]:
        order = jnp.argsort(jnp.where(jnp.isfinite(energies), energies, jnp.inf))
        chosen = jax.tree.map(lambda leaf: leaf[order[:elite]], points)
        return distribution.fit(parameters, chosen, rate), memory

    return Update(lambda parameters: (), fit, least=elite)
