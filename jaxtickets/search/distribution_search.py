"""Search by a distribution that learns: it is sampled, and its parameters follow the energies.

Zlochin, Birattari, Meuleau and Dorigo, "Model-based search for combinatorial optimization: a
critical survey", 2004. Where annealing walks from point to point, these methods walk over the
parameters of a distribution of points. They differ in their update: `policy_gradient` follows the
gradient of the expected energy, and `cross_entropy` fits the best samples.

    update = cross_entropy.update(distributions.bernoulli, elite=4)
    kernel = distribution_search.build(distributions.bernoulli, update, energy, samples=16)
    state = kernel.init(logits)
    state, info = kernel.step(key, state)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.distributions import Distribution
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Key, PyTree


class Update(NamedTuple):
    """How parameters follow the energies of samples, as pure functions.

    Attributes:
      init: `init(parameters) -> memory`.
      update: `update(parameters, memory, points, energies) -> (parameters, memory)`; the points and
        `energies[samples]` are stacked.
      least: the fewest samples that it takes.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree]]
    least: int = 1


class State(NamedTuple):
    """A search in progress.

    Attributes:
      parameters: of the distribution.
      memory: that of the update.
      energy: float scalar, the mean energy of the last samples; infinite before the first.
      best: the point of the lowest energy so far; before the first step, the likeliest point.
      best_energy: float scalar, its energy; infinite before the first step.
    """

    parameters: PyTree
    memory: PyTree
    energy: Array
    best: PyTree
    best_energy: Array


class Info(NamedTuple):
    """Diagnostics of a step, as scalars.

    Attributes:
      energy: float, the mean energy of the step's samples.
      best_energy: float, the lowest energy so far.
      spread: float, the standard deviation of the energies of the step's samples.
    """

    energy: Array
    best_energy: Array
    spread: Array


class Kernel(NamedTuple):
    """A search by a distribution, as pure functions; keys are consumed.

    Attributes:
      init: `init(parameters) -> State`; no energy is computed.
      step: `step(key, state) -> (State, Info)`: samples, energies, and an update.
      try_likeliest: `try_likeliest(key, state) -> State`: computes the energy of the likeliest
        point, which becomes the best one if it is better.
    """

    init: Callable[[PyTree], State]
    step: Callable[[Key, State], tuple[State, Info]]
    try_likeliest: Callable[[Key, State], State]


def _same(key: Key, sample: PyTree) -> PyTree:
    del key
    return sample


def build(
    distribution: Distribution,
    update: Update,
    energy: Callable[[Key, PyTree], Array],
    samples: int,
    likeliest: Callable[[PyTree], PyTree],
    point: Callable[[Key, PyTree], PyTree] = _same,
) -> Kernel:
    """The kernel of a distribution, an update and an energy.

    The energies of a step are computed one after another, with one key: if the energy draws new
    examples, all samples of the step see the same.

    Args:
      distribution: what is sampled.
      update: how its parameters change.
      energy: `energy(key, point) -> scalar`, lower is better.
      samples: the samples of a step.
      likeliest: `likeliest(parameters) -> point`.
      point: `point(key, sample) -> point`, such as a mask of an exact count from independent bits;
        the key is consumed. The default is the sample itself.

    Raises:
      ValueError: the update takes more samples.

    >>> from jaxtickets.search.cross_entropy import update
    >>> from jaxtickets.search.distributions import bernoulli
    >>> kernel = build(
    ...     bernoulli,
    ...     update(bernoulli, elite=4),
    ...     energy=lambda key, bits: jnp.sum(jnp.where(bits, 0.0, 1.0)),
    ...     samples=64,
    ...     likeliest=lambda logits: logits > 0,
    ... )
    >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2)))
    >>> state.best.tolist(), float(state.best_energy)
    ([True, True], 0.0)
    """
    if samples < update.least:
        raise ValueError(f"samples={samples}: the update takes {update.least} or more")

    def init(parameters: PyTree) -> State:
        most = jnp.asarray(jnp.inf, float)
        return State(parameters, update.init(parameters), most, likeliest(parameters), most)

    def step(key: Key, state: State) -> tuple[State, Info]:
        sample_key, point_key, energy_key = jax.random.split(key, 3)
        keys = jax.random.split(sample_key, samples)
        drawn = jax.vmap(distribution.sample, (0, None))(keys, state.parameters)
        points = jax.vmap(point)(jax.random.split(point_key, samples), drawn)
        # one after another: `vmap` would evaluate all their nets at once
        energies = jax.lax.map(lambda one: energy(energy_key, one), points)
        check_array("the energies of the samples", energies, (samples,), float)
        parameters, memory = update.update(state.parameters, state.memory, drawn, energies)
        order = jnp.where(jnp.isfinite(energies), energies, jnp.inf)
        at = jnp.argmin(order)
        mean = jnp.mean(energies).astype(float)
        state = State(parameters, memory, mean, state.best, state.best_energy)
        state = _better(state, jax.tree.map(lambda leaf: leaf[at], points), order[at])
        return state, Info(mean, state.best_energy, jnp.std(energies))

    def try_likeliest(key: Key, state: State) -> State:
        there = likeliest(state.parameters)
        return _better(state, there, energy(key, there))

    return Kernel(init, step, try_likeliest)


def _better(state: State, point: PyTree, energy: Array) -> State:
    """The state whose best point is `point`, if its energy is lower."""
    lower = energy < state.best_energy
    best = jax.tree.map(lambda new, old: jnp.where(lower, new, old), point, state.best)
    least = jnp.where(lower, energy, state.best_energy).astype(float)
    return state._replace(best=best, best_energy=least)
