"""How chains help each other whose points are trainings; see `annealed_training`.

Exchange and population annealing are those of any search (`search.interacting_chains`). Copies and
children carry weights and moments with them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtickets import masks, optimizer_states
from jaxtickets.dynamic.base import mask_of
from jaxtickets.search import genetic, interacting_chains
from jaxtickets.search.annealing import State
from jaxtickets.search.interacting_chains import Between, Interaction
from jaxtickets.search.space import Space
from jaxtickets.types import Array, Key, PyTree, TrainState


def copying(replaced: float) -> Interaction:
    """The worst chains become copies of the best, one of each, with their weights.

    Args:
      replaced: the share of chains that is replaced, at most half.

    >>> walks, energies = jnp.array([7, 8]), jnp.array([5.0, 0.0])
    >>> states = State(walks, energies, walks, energies, walks, jnp.ones(2), jnp.zeros(2), ())
    >>> states, _ = copying(replaced=0.5).interact(jax.random.key(0), (), states, (), ())
    >>> states.walk.tolist()  # the better chain, twice
    [8, 8]
    """

    def interact(
        key: Key, kernel: tuple, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        del key, kernel, between
        order = jnp.argsort(_finite(states.energy))
        many = _count(replaced, states)
        parents = jnp.arange(len(order)).at[order[-many:]].set(order[:many])
        return jax.tree.map(lambda leaf: leaf[parents], states), memory

    return Interaction(lambda states: (states, ()), interact)


def crossing(
    replaced: float,
    space: Space,
    optimizer: optax.GradientTransformation,
    floor: int = 0,
) -> Interaction:
    """The worst chains become children of two chains that won tournaments of two.

    A child's mask keeps what both parents keep, and a random part of the rest
    (`genetic.crossover`). Its weights and moments are the fitter parent's; what only the other has
    starts at zero.

    Args:
      replaced: the share of chains that is replaced, at most half.
      space: the space of the bits of masks.
      optimizer: the inner optimiser, whose moments are reset.
      floor: see `genetic.crossover`.

    >>> from jaxtickets import training
    >>> from jaxtickets.dynamic.static import masked
    >>> from jaxtickets.recipes.annealed_training import Walk
    >>> from jaxtickets.search.space import weights
    >>> params, sgd = {"w": jnp.array([[1.0, 2.0]])}, optax.sgd(0.1)
    >>> space = weights(params, ("w",))
    >>> def start(bits):
    ...     return training.init(params, {}, masked(sgd, space.mask(bits)))
    >>> walks = Walk(jax.vmap(start)(jnp.eye(2, dtype=bool)), held=())
    >>> energies = jnp.array([0.0, 1.0])
    >>> states = State(walks, energies, (), energies, (), jnp.ones(2), jnp.zeros(2), ())
    >>> states, _ = crossing(0.5, space, sgd).interact(jax.random.key(0), (), states, (), ())
    >>> states.walk.state.mask["w"].sum((1, 2)).tolist()  # the child keeps as many as its parents
    [1, 1]
    """

    def interact(
        key: Key, kernel: tuple, states: State, memory: PyTree, between: Between
    ) -> tuple[State, PyTree]:
        del kernel, between
        many = _count(replaced, states)
        first_key, second_key, cross_key = jax.random.split(key, 3)
        one, other = (
            genetic.tournament(k, states.energy, 2, many) for k in (first_key, second_key)
        )
        finite = _finite(states.energy)
        fitter = jnp.where(finite[one] <= finite[other], one, other)
        weaker = one + other - fitter
        trained = states.walk.state
        bits = jax.vmap(space.bits)(mask_of(trained.opt_state))
        keys = jax.random.split(cross_key, many)
        born = jax.vmap(lambda k, a, b: genetic.crossover(k, space, a, b, floor))(
            keys, bits[fitter], bits[weaker]
        )

        def child(state: TrainState, bits: Array) -> TrainState:
            mask = space.mask(bits)
            old = jax.tree.map(jnp.logical_and, mask, state.mask)
            params = masks.apply(old, state.params)
            inner = optimizer_states.reset_moments(optimizer, state.opt_state.inner, params, old)
            return state._replace(
                params=params, opt_state=state.opt_state._replace(mask=mask, inner=inner)
            )

        parents = jax.tree.map(lambda leaf: leaf[fitter], trained)
        children = jax.lax.map(lambda pair: child(*pair), (parents, born))
        worst = jnp.argsort(finite)[-many:]
        new = jax.tree.map(lambda leaf, rows: leaf.at[worst].set(rows), trained, children)
        return states._replace(walk=states.walk._replace(state=new)), memory

    return Interaction(lambda states: (states, ()), interact)


INTERACTIONS: dict[str, Callable[..., Interaction] | None] = {
    "none": None,
    "exchange": interacting_chains.exchanging,
    "population": interacting_chains.populating,
    "copies": copying,
    "crossover": crossing,
}
"""Name -> the interaction's factory, which takes what it needs of `ladder`, `replaced`, `space`,
`optimizer` and `floor`; None for independent chains."""


def _finite(energy: Array) -> Array:
    return jnp.where(jnp.isfinite(energy), energy, jnp.inf)


def _count(share: float, states: State) -> int:
    chains = states.energy.shape[0]
    return min(max(1, round(share * chains)), chains // 2)
