"""Replica exchange: chains at several temperatures, neighbours of which change places.

Rungs of a ladder are temperatures; each chain stands on one. Between chunks of steps, the chains of
neighbouring rungs change places with probability

    min(1, exp((1 / T_i - 1 / T_j) (E_i - E_j)))

which leaves each rung's Boltzmann distribution unchanged: a good mask sinks to the cold rungs, and
a chain that is stuck rises to the hot ones. Hukushima and Nemoto, "Exchange Monte Carlo method and
application to spin glass simulations", 1996. Even and odd pairs take turns (Syed et al.,
"Non-reversible parallel tempering", 2022), whose way of spacing the rungs is here too.

Only temperatures move, the states' `scale`; masks stay with their chains. All functions are of all
chains at once, leading axis chains, and see nothing but scalars:

    ladder = exchange.begin(scales)
    states = exchange.place(ladder, states)
    ...                                        # a chunk of steps of each chain
    ladder = exchange.swap(key, ladder, states.energy, temperature)
    states = exchange.place(ladder, states)

Energies must not be fresh at each step: two that are compared are those of the same examples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.annealing import State
from jaxtickets.types import Array, Key


class Ladder(NamedTuple):
    """Temperatures, and who stands where.

    Attributes:
      scales: float32`[rungs]`, rising; each times the plan's temperature is a rung's.
      rung: int32`[chains]`, the rung of each chain; as many rungs as chains.
      round: int32, how often chains were asked to change places.
      asked: float32`[rungs - 1]`, how often the chains of a rung and the next were asked to.
      accepted: float32`[rungs - 1]`, the sum of their probabilities to do so.
    """

    scales: Array
    rung: Array
    round: Array
    asked: Array
    accepted: Array


def begin(scales: Array) -> Ladder:
    """A ladder of `scales[rungs]`, rising, chain i on rung i; two rungs or more."""
    scales = jnp.asarray(scales, jnp.float32)
    rungs = scales.shape[0]
    nothing = jnp.zeros(rungs - 1, jnp.float32)
    return Ladder(scales, jnp.arange(rungs, dtype=jnp.int32), jnp.int32(0), nothing, nothing)


def place(ladder: Ladder, states: State) -> State:
    """Stacked states with the temperatures of their rungs."""
    return states._replace(scale=ladder.scales[ladder.rung])


def swap(key: Key, ladder: Ladder, energy: Array, temperature: Array) -> Ladder:
    """Neighbours change places, or don't: even rungs and the next in one round, odd in the other.

    Args:
      key: consumed.
      ladder: before.
      energy: float32`[chains]`, of the current masks.
      temperature: what `scales` are multiplied by, the plan's.
    """
    rungs = ladder.scales.shape[0]
    at = jnp.argsort(ladder.rung)  # the chain on each rung
    cold = 1 / (ladder.scales * temperature)
    rise = jnp.diff(energy[at])
    chance = jnp.exp(jnp.minimum(jnp.diff(cold) * rise, 0.0))
    asked = jnp.arange(rungs - 1) % 2 == ladder.round % 2
    moved = asked & (jax.random.uniform(key, (rungs - 1,)) < chance)
    up = jnp.concatenate([moved, jnp.zeros(1, bool)])  # the chain on this rung goes to the next
    down = jnp.concatenate([jnp.zeros(1, bool), moved])
    to = jnp.arange(rungs) + up - down
    share = jnp.where(asked & jnp.isfinite(chance), chance, 0.0)
    return Ladder(
        scales=ladder.scales,
        rung=to.astype(jnp.int32)[ladder.rung],
        round=ladder.round + 1,
        asked=ladder.asked + asked,
        accepted=(ladder.accepted + share).astype(ladder.accepted.dtype),
    )


def rates(ladder: Ladder) -> Array:
    """float32`[rungs - 1]`: mean probabilities to change places; 1 where nobody was asked yet."""
    return jnp.where(ladder.asked > 0, ladder.accepted / jnp.maximum(ladder.asked, 1), 1.0)


def adapt(ladder: Ladder) -> Ladder:
    """The ladder with its inner rungs moved so that all neighbours refuse as often.

    The refusals summed from the coldest rung up, Λ, are taken as a function of log T, linear
    between rungs; the new rungs are at equal distances of Λ. The ends stay, counting begins again.
    Syed et al., 2022, section 5.4. Adapting for ever is not exact: do so before what counts.
    """
    refused = jnp.maximum(1 - rates(ladder), 1e-3)  # rising, so that it can be inverted
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(refused)])
    even = jnp.linspace(0.0, barrier[-1], barrier.shape[0])
    scales = jnp.exp(jnp.interp(even, barrier, jnp.log(ladder.scales)))
    scales = scales.astype(ladder.scales.dtype)
    scales = scales.at[0].set(ladder.scales[0]).at[-1].set(ladder.scales[-1])
    nothing = jnp.zeros_like(ladder.asked)
    return ladder._replace(scales=scales, asked=nothing, accepted=nothing)
