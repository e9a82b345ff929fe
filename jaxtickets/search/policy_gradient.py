"""Policy gradient: REINFORCE on the parameters of a distribution of points.

The gradient of the expected energy is estimated from m samples x_j alone,

    1/m Σ_j (E(x_j) - b_j) ∇ ln p(x_j),    b_j = 1/(m - 1) Σ_{k≠j} E(x_k)

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", 1992; the baseline of the other samples, which leaves the estimate unbiased, is that of
Kool, van Hoof and Welling, "Buy 4 REINFORCE samples, get a baseline for free!", 2019. The reward is
minus the energy, and there is one action.
"""

import jax
import jax.numpy as jnp
import optax

from jaxtickets.search.distribution_search import Update
from jaxtickets.search.distributions import Distribution
from jaxtickets.types import Array, PyTree


def gradient(
    distribution: Distribution, parameters: PyTree, points: PyTree, energies: Array
) -> PyTree:
    """The unbiased estimate of the gradient of the expected energy, like `parameters`.

    Args:
      distribution: what the points are samples of.
      parameters: its parameters.
      points: two samples or more, stacked.
      energies: float`[samples]`.

    >>> from jaxtickets.search.distributions import bernoulli
    >>> points, energies = jnp.array([[True], [False]]), jnp.array([1.0, 0.0])
    >>> gradient(bernoulli, jnp.zeros(1), points, energies).tolist()  # the bit raises the energy
    [0.5]
    """
    many = energies.shape[0]
    advantages = (energies - jnp.mean(energies)) * (many / (many - 1))

    def weighed(at: PyTree) -> Array:
        return jnp.mean(advantages * jax.vmap(distribution.log_prob, (None, 0))(at, points))

    return jax.grad(weighed)(parameters)


def update(distribution: Distribution, optimizer: optax.GradientTransformation) -> Update:
    """Descent of the estimated gradient by an optimiser, whose state is the memory.

    >>> from jaxtickets.search.distributions import bernoulli
    >>> descent = update(bernoulli, optax.sgd(1.0))
    >>> logits = jnp.zeros(1)
    >>> points, energies = jnp.array([[True], [False]]), jnp.array([1.0, 0.0])
    >>> descent.update(logits, descent.init(logits), points, energies)[0].tolist()
    [-0.5]
    """

    def follow(
        parameters: PyTree, memory: PyTree, points: PyTree, energies: Array
    ) -> tuple[PyTree, PyTree]:
        found = gradient(distribution, parameters, points, energies)
        updates, memory = optimizer.update(found, memory, parameters)
        return optax.apply_updates(parameters, updates), memory

    return Update(optimizer.init, follow, least=2)
