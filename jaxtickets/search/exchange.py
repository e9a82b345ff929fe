"""Replica exchange: chains at several temperatures; neighbouring temperatures swap their chains.

The rungs of a ladder are temperatures, and each chain is on one rung. Between chunks of steps, the
chains of neighbouring rungs i and j swap rungs with probability

    min(1, exp((1 / T_i - 1 / T_j) (E_i - E_j)))

which leaves the Boltzmann distribution of each rung invariant. A good mask moves to the cold rungs,
and a chain that is stuck moves to the hot ones. Hukushima and Nemoto, "Exchange Monte Carlo method
and application to spin glass simulations", 1996. Even and odd pairs alternate, and `adapt` spaces
the rungs, as in Syed et al., "Non-reversible parallel tempering", 2022.

A swap exchanges the temperatures of two chains, the `scale` of their states; masks stay with their
chains. All functions take all chains at once, with a leading axis of chains, and read only scalars:

    ladder = exchange.begin(scales)
    states = exchange.place(ladder, states)
    ...                                        # a chunk of steps of each chain
    ladder = exchange.swap(key, ladder, states.energy, temperature)
    states = exchange.place(ladder, states)

The energy must not draw new examples at each step: a swap compares energies of the same examples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.annealing import State
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Key


class Ladder(NamedTuple):
    """The temperatures, and the rung of each chain.

    Attributes:
      scales: float32`[rungs]`, increasing; a rung's temperature is its scale times the planned
        temperature.
      rung: int32`[chains]`, the rung of each chain; there are as many rungs as chains.
      round: int32 scalar, the number of rounds of swaps so far.
      asked: float32`[rungs - 1]`, the number of swaps tried between a rung and the next.
      accepted: float32`[rungs - 1]`, the sum of the acceptance probabilities of those swaps.
    """

    scales: Array
    rung: Array
    round: Array
    asked: Array
    accepted: Array


def begin(scales: Array) -> Ladder:
    """The ladder of the increasing `scales[rungs]`, with chain i on rung i.

    Raises:
      ValueError: there are fewer than two rungs.

    >>> ladder = begin([1.0, 2.0, 4.0])
    >>> ladder.scales.tolist(), ladder.rung.tolist()
    ([1.0, 2.0, 4.0], [0, 1, 2])
    """
    scales = jnp.asarray(scales, jnp.float32)
    check_array("the scales", scales, ("rungs",))
    rungs = scales.shape[0]
    if rungs < 2:
        raise ValueError(f"the scales: a ladder needs 2 rungs or more, not {rungs}")
    nothing = jnp.zeros(rungs - 1, jnp.float32)
    return Ladder(scales, jnp.arange(rungs, dtype=jnp.int32), jnp.int32(0), nothing, nothing)


def place(ladder: Ladder, states: State) -> State:
    """Sets the `scale` of each of the stacked states to that of its rung.

    >>> ladder = begin([1.0, 2.0])._replace(rung=jnp.array([1, 0]))
    >>> states = State((), (), (), (), (), scale=np.ones(2), log_size=(), memory=())
    >>> place(ladder, states).scale.tolist()
    [2.0, 1.0]
    """
    return states._replace(scale=ladder.scales[ladder.rung])


def swap(key: Key, ladder: Ladder, energy: Array, temperature: Array) -> Ladder:
    """One round of swaps, of even rungs with the next or of odd rungs with the next, in turn.

    Args:
      key: consumed.
      ladder: the ladder before the round.
      energy: float`[chains]`, the energies of the current masks.
      temperature: float32 scalar, the planned temperature, which multiplies `scales`.

    >>> ladder = begin([1.0, 2.0])
    >>> better_is_hotter = jnp.array([1.0, 0.0])
    >>> swap(jax.random.key(0), ladder, better_is_hotter, temperature=1.0).rung.tolist()
    [1, 0]
    """
    rungs = ladder.scales.shape[0]
    check_array("the energies of the chains", energy, (rungs,))
    check_array("the temperature", temperature, ())
    at = jnp.argsort(ladder.rung)  # the chain on each rung
    cold = 1 / (ladder.scales * temperature)
    rise = jnp.diff(energy[at])
    chance = jnp.exp(jnp.minimum(jnp.diff(cold) * rise, 0.0))
    asked = jnp.arange(rungs - 1) % 2 == ladder.round % 2
    moved = asked & (jax.random.uniform(key, (rungs - 1,)) < chance)
    up = jnp.concatenate([moved, jnp.zeros(1, bool)])  # the chain on this rung moves to the next
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
    """float32`[rungs - 1]`: mean acceptance probabilities of swaps; 1 before any was tried.

    >>> ladder = begin([1.0, 2.0, 4.0])
    >>> rates(ladder._replace(asked=jnp.array([4.0, 0.0]), accepted=jnp.array([1.0, 0.0]))).tolist()
    [0.25, 1.0]
    """
    return jnp.where(ladder.asked > 0, ladder.accepted / jnp.maximum(ladder.asked, 1), 1.0)


def adapt(ladder: Ladder) -> Ladder:
    """Moves the inner rungs so that all neighbouring pairs reject swaps equally often.

    The rejection rates, summed from the coldest rung up, give a function Λ of log T, linear between
    rungs. The new rungs are at equal distances in Λ; the outer rungs stay, and the counts restart
    at 0. Syed et al., 2022, section 5.4. A chain whose ladder keeps adapting does not sample
    exactly, so adapt only before the steps that count.

    >>> ladder = begin([1.0, 4.0, 16.0])
    >>> ladder = ladder._replace(asked=jnp.array([4.0, 4.0]), accepted=jnp.array([0.0, 2.0]))
    >>> [round(scale, 3) for scale in adapt(ladder).scales.tolist()]  # the middle: 4^(3/4)
    [1.0, 2.828, 16.0]
    """
    refused = jnp.maximum(1 - rates(ladder), 1e-3)  # positive, so that Λ can be inverted
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(refused)])
    even = jnp.linspace(0.0, barrier[-1], barrier.shape[0])
    scales = jnp.exp(jnp.interp(even, barrier, jnp.log(ladder.scales)))
    scales = scales.astype(ladder.scales.dtype)
    scales = scales.at[0].set(ladder.scales[0]).at[-1].set(ladder.scales[-1])
    nothing = jnp.zeros_like(ladder.asked)
    return ladder._replace(scales=scales, asked=nothing, accepted=nothing)
