"""Population annealing: at each cooling, good chains are copied and bad ones dropped.

A population of chains in equilibrium at T is in equilibrium at T' < T once each chain is copied, on
average, in proportion to

    w_i = exp(-(1 / T' - 1 / T) E_i)

Each chain then continues at T'. Hukushima and Iba, "Population annealing and its application to a
spin glass", 2003; Machta, "Population annealing with weighted averages", 2010. The draw is
systematic: one random number serves all chains, so that the copies of each chain are its expected
number, rounded up or down.

    states, info = population.cool(key, states, temperature, colder)     # scales times the plan's
    ...                                                                  # a chunk at the colder

All functions take stacked states, with a leading axis of chains. Only copied chains move to new
places. The energy must not draw new examples at each step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.annealing import State, best_of
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Key


class Found(NamedTuple):
    """Diagnostics of a cooling.

    Attributes:
      parents: int32`[chains]`: the index of the chain that each chain is a copy of.
      log_ratio: float32 scalar, the log of the mean weight: an estimate of `ln Z(T') - ln Z(T)`.
      share: float32 scalar in (0, 1], the effective share of the population, `(Σ w)^2 / (n Σ w^2)`.
    """

    parents: Array
    log_ratio: Array
    share: Array


def cool(key: Key, states: State, temperature: Array, colder: Array) -> tuple[State, Found]:
    """Resamples the population for the next temperature; the best points so far are kept.

    Args:
      key: consumed.
      states: stacked.
      temperature, colder: T and T', scales included: float32 scalars, or `[chains]`.

    >>> walks, energies = jnp.array([7, 8]), jnp.array([5.0, 0.0])
    >>> states = State(walks, energies, walks, energies, walks, jnp.ones(2), jnp.zeros(2), ())
    >>> copies, found = cool(jax.random.key(0), states, temperature=1.0, colder=0.01)
    >>> copies.walk.tolist(), found.parents.tolist()  # the better chain, twice
    ([8, 8], [1, 1])
    """
    check_array("the energies of the chains", states.energy, ("chains",))
    for name, value in (("the temperature", temperature), ("the colder temperature", colder)):
        if jnp.ndim(value):
            check_array(name, value, states.energy.shape)
    log_weight = -(1 / colder - 1 / temperature) * states.energy
    log_weight = jnp.where(jnp.isfinite(log_weight), log_weight, -jnp.inf)
    parents = resample(key, log_weight)
    copies = jax.tree.map(lambda leaf: leaf[parents], states)
    n = log_weight.shape[0]
    total = jax.nn.logsumexp(log_weight)
    share = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weight)) / n
    return best_of(copies, states), Found(parents, total - jnp.log(n), share)


def resample(key: Key, log_weight: Array) -> Array:
    """int32`[n]`: parents; parent i occurs `n w_i / Σ w` times, rounded down or up.

    Systematic resampling: the points `(u + 0 ... n - 1) / n`, with one uniform u, are looked up in
    the cumulative weights. A parent that is drawn stays in its own place; its further copies fill
    the places of parents that were not drawn. The key is consumed; the weights must not all be
    zero.

    >>> weight = np.array([0.0, 0.5, 0.25, 0.25], np.float32)
    >>> parents = jax.jit(resample)(jax.random.key(0), jnp.log(weight))
    >>> sorted(parents.tolist())
    [1, 1, 2, 3]
    """
    check_array("the log weights", log_weight, ("n",), float)
    n = log_weight.shape[0]
    upto = jnp.cumsum(jax.nn.softmax(log_weight))
    at = (jnp.arange(n) + jax.random.uniform(key)) / n
    drawn = jnp.minimum(jnp.searchsorted(upto / upto[-1], at, side="right"), n - 1)
    again = jnp.diff(drawn, prepend=-1) == 0
    gone = jnp.ones(n, bool).at[drawn].set(False)
    copies = drawn[jnp.argsort(~again, stable=True)]  # further copies come first
    places = jnp.where(jnp.sort(gone)[::-1], jnp.argsort(~gone, stable=True), n)
    return jnp.arange(n, dtype=jnp.int32).at[places].set(copies.astype(jnp.int32), mode="drop")
