"""Population annealing: at each cooling, good chains are copied and bad ones left.

A population of chains is in equilibrium at T; at T' < T it is again once each chain is copied, in
the mean, in proportion to

    w_i = exp(-(1 / T' - 1 / T) E_i)

and then each walks on at T'. Hukushima and Iba, "Population annealing and its application to a spin
glass", 2003; Machta, "Population annealing with weighted averages", 2010. The draw is systematic:
one random number for all, so that each chain has the whole number of copies just below or above.

    states, found = population.cool(key, states, temperature, colder)    # scales times the plan's
    ...                                                                  # a chunk at the colder

All functions are of stacked states, leading axis chains. Only chains that are copied need moving.
Energies must not be fresh at each step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.annealing import State, best_of
from jaxtickets.types import Array, Key


class Found(NamedTuple):
    """What a cooling says.

    Attributes:
      parents: int32`[chains]`: whose copy each chain is.
      log_ratio: float32, the logarithm of the mean weight: an estimate of `ln Z(T') - ln Z(T)`.
      share: float32 in (0, 1], the effective share of the population, `(Σ w)^2 / (n Σ w^2)`.
    """

    parents: Array
    log_ratio: Array
    share: Array


def cool(key: Key, states: State, temperature: Array, colder: Array) -> tuple[State, Found]:
    """The population resampled for the next temperature; the best point so far isn't lost.

    Args:
      key: consumed.
      states: stacked.
      temperature, colder: float32, or `[chains]`: T and T', scales included.
    """
    log_weight = -(1 / colder - 1 / temperature) * states.energy
    log_weight = jnp.where(jnp.isfinite(log_weight), log_weight, -jnp.inf)
    parents = resample(key, log_weight)
    copies = jax.tree.map(lambda leaf: leaf[parents], states)
    n = log_weight.shape[0]
    total = jax.nn.logsumexp(log_weight)
    share = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weight)) / n
    return best_of(copies, states), Found(parents, total - jnp.log(n), share)


def resample(key: Key, log_weight: Array) -> Array:
    """int32`[n]`: parents, each i as often as `n w_i / Σ w`, rounded down or up.

    Systematic resampling: `(u + 0 ... n - 1) / n` looked up in the cumulated weights, with one u. A
    parent that is drawn at all is its own: its other copies go where a parent wasn't. The key is
    consumed; the weights are not all zero.
    """
    n = log_weight.shape[0]
    upto = jnp.cumsum(jax.nn.softmax(log_weight))
    at = (jnp.arange(n) + jax.random.uniform(key)) / n
    drawn = jnp.minimum(jnp.searchsorted(upto / upto[-1], at, side="right"), n - 1)
    again = jnp.diff(drawn, prepend=-1) == 0
    gone = jnp.ones(n, bool).at[drawn].set(False)
    copies = drawn[jnp.argsort(~again, stable=True)]  # second copies first, as many as are gone
    places = jnp.where(jnp.sort(gone)[::-1], jnp.argsort(~gone, stable=True), n)
    return jnp.arange(n, dtype=jnp.int32).at[places].set(copies.astype(jnp.int32), mode="drop")
