"""How the chains of a search move: the moves of `search`, made for a chain's weights and data.

    proposal = swaps(domain.space, most=2000)
    proposal(chain, data).moves.propose(key, size, walk)

A new proposal is a function and a row of `PROPOSALS`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.data.batches import stream
from jaxtickets.recipes.search_domain import ChainInputs, SearchData
from jaxtickets.recipes.search_energies import SearchedNet
from jaxtickets.search import (
    energies,
    fields,
    incremental_energy,
    independent_draws,
    patterns,
    trained_swaps,
)
from jaxtickets.search import informed as informed_swaps
from jaxtickets.search import swaps as random_swaps
from jaxtickets.search.energies import Measure, training_cost
from jaxtickets.search.incremental_energy import Layer
from jaxtickets.search.moves import Moves
from jaxtickets.search.space import LAYER, Space
from jaxtickets.types import Array, Key, Mask, PyTree, Split


class ChainMoves(NamedTuple):
    """How a chain moves.

    Attributes:
      moves: the moves.
      energy_at: `energy_at(walk) -> scalar`, the energy at a walk that knows it beside its point;
        None: it is that of the point's mask.
      fresh: whether the walk finds each energy on other data.
    """

    moves: Moves
    energy_at: Callable[[PyTree], Array] | None = None
    fresh: bool = False


ChainProposal = Callable[[ChainInputs, SearchData], ChainMoves]
"""`proposal(chain, data) -> ChainMoves`."""


def _always(moves: Moves) -> ChainProposal:
    """The same moves, whatever the weights and the data are."""
    return lambda chain, data: ChainMoves(moves)


def potentials(space: fields.Space, size: float) -> ChainProposal:
    """Random steps of potentials, `size` nats at most, see `fields.moves`.

    >>> over = fields.space({"w": np.zeros((2, 3))}, ("w",), ["chance"])
    >>> potentials(over, size=0.5)((), ()).moves.most
    0.5
    """
    return _always(fields.moves(space, max(size, 1e-3)))


def pattern_swaps(space: Space, most: int) -> ChainProposal:
    """Swaps within groups of a pattern, see `patterns.moves`.

    >>> from jaxtickets.search.space import weights
    >>> pairs = weights({"w": np.ones((2, 1))}, ("w",), scope="pattern", group=2)
    >>> moves = pattern_swaps(pairs, most=1)((), ()).moves
    >>> walk = moves.init(jax.random.key(0), jnp.array([True, False]))
    >>> jax.jit(moves.propose)(jax.random.key(1), 1, walk).walk.bits.tolist()
    [False, True]
    """
    return _always(patterns.moves(space, most))


def swaps(space: Space, most: int, floor: int = 0, tabu: int = 0, tries: int = 20) -> ChainProposal:
    """Random swaps, see `swaps.moves`; each layer keeps `floor` or more.

    >>> from jaxtickets.search.space import weights
    >>> moves = swaps(weights({"w": np.ones((1, 4))}, ("w",)), most=2)((), ()).moves
    >>> walk = moves.init(jax.random.key(0), jnp.array([True, True, False, False]))
    >>> jax.jit(moves.propose)(jax.random.key(1), 2, walk).walk.bits.tolist()
    [False, False, True, True]
    """
    return _always(random_swaps.moves(space, most, _floors(space, floor), tabu, tries))


def independent(space: Space, most: int, floor: int = 0) -> ChainProposal:
    """Masks drawn independently, see `independent_draws.moves`.

    >>> from jaxtickets.search.space import weights
    >>> moves = independent(weights({"w": np.ones((1, 4))}, ("w",)), most=2)((), ()).moves
    >>> walk = moves.init(jax.random.key(0), jnp.array([True, True, False, False]))
    >>> int(moves.propose(jax.random.key(1), 2, walk).walk.bits.sum())
    2
    """
    return _always(independent_draws.moves(space, most, _floors(space, floor)))


def informed(
    net: SearchedNet,
    space: Space,
    most: int,
    measure: Measure,
    candidates: int = 2000,
    floor: int = 0,
) -> ChainProposal:
    """Swaps that the gradient of the untrained net's measure favours, see `informed.moves`.

    >>> from jaxtickets.nets import functional_plain
    >>> from jaxtickets.search.space import weights
    >>> from jaxtickets.training import Recipe
    >>> params, key = {"w": jnp.array([[1.0], [5.0], [10.0], [11.0]])}, jax.random.key(0)
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> recipe = Recipe(model, (), (), prepare=(), augment=None, batch_size=1, every=1)
    >>> net = SearchedNet(recipe, optax.sgd(0.5), ("w",), rescale=False)
    >>> seen = Split(jnp.ones((1, 4)), jnp.zeros(1, int))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> lower = lambda logits, labels: -jnp.sum(logits)  # lower with larger weights
    >>> moves = informed(net, weights(params, ("w",)), most=1, measure=lower)(chain, data).moves
    >>> cold = moves.heat(moves.init(key, jnp.array([True, True, False, False])), 0.0)
    >>> there = jax.jit(moves.propose)(key, 1, cold).walk
    >>> there.bits[:2].tolist()  # the smallest weight is switched off
    [False, True]
    """
    return _informed(net, measure, space, most, candidates, _floors(space, floor), False)


def informed_corrected(
    net: SearchedNet,
    space: Space,
    most: int,
    measure: Measure,
    candidates: int = 2000,
    floor: int = 0,
) -> ChainProposal:
    """As `informed`, with the correction that keeps Metropolis' rule exact.

    >>> from jaxtickets.nets import functional_plain
    >>> from jaxtickets.search.space import weights
    >>> from jaxtickets.training import Recipe
    >>> params, key = {"w": jnp.array([[1.0], [5.0], [10.0], [11.0]])}, jax.random.key(0)
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> recipe = Recipe(model, (), (), prepare=(), augment=None, batch_size=1, every=1)
    >>> net = SearchedNet(recipe, optax.sgd(0.5), ("w",), rescale=False)
    >>> seen = Split(jnp.ones((1, 4)), jnp.zeros(1, int))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> lower, space = lambda logits, labels: -jnp.sum(logits), weights(params, ("w",))
    >>> moves = informed_corrected(net, space, most=1, measure=lower)(chain, data).moves
    >>> warm = moves.heat(moves.init(key, jnp.array([True, True, False, False])), 1.0)
    >>> proposal = jax.jit(moves.propose)(key, 1, warm)
    >>> bool(proposal.log_ratio < -1)  # the way back is proposed less often
    True
    """
    return _informed(net, measure, space, most, candidates, _floors(space, floor), True)


def _informed(
    net: SearchedNet,
    measure: Measure,
    space: Space,
    most: int,
    candidates: int,
    floors: tuple[int, ...] | None,
    corrected: bool,
) -> ChainProposal:
    gradient_of = _gradient(net, measure)

    def proposal(chain: ChainInputs, data: SearchData) -> ChainMoves:
        gradient = gradient_of(chain, data)
        return ChainMoves(
            informed_swaps.moves(space, most, gradient, candidates, corrected, floors)
        )

    return proposal


def _gradient(
    net: SearchedNet, measure: Measure
) -> Callable[[ChainInputs, SearchData], informed_swaps.MaskGradient]:
    """The gradient of a chain's measure with respect to the bits."""
    return lambda chain, data: informed_swaps.fixed(
        net.recipe.model,
        chain.params,
        chain.stats,
        data.scored.images,
        data.scored.labels,
        measure=measure,
        prunable=net.prunable,
        values=net.ticket_params,
    )


def trained(
    net: SearchedNet,
    space: Space,
    most: int,
    measure: Measure,
    train_steps: int,
    floor: int = 0,
) -> ChainProposal:
    """Swaps that a short training speaks for, see `trained_swaps`; it gives the energy too.

    >>> from jaxtickets.nets import functional_plain
    >>> from jaxtickets.search.space import weights
    >>> from jaxtickets.training import Recipe
    >>> params, key = {"w": jnp.array([[1.0], [2.0], [3.0], [4.0]])}, jax.random.key(0)
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> def decay(params, stats, batch, key):
    ...     return jnp.sum(params["w"] ** 2) / 2, (stats, {})
    >>> space = weights(params, ("w",))
    >>> recipe = Recipe(model, decay, (), prepare=(), augment=None, batch_size=1, every=1)
    >>> net = SearchedNet(recipe, optax.sgd(0.5), ("w",), rescale=False)
    >>> seen = Split(jnp.array([[1.0, 1.0, 1.0, 9.0]]), jnp.zeros(1, int))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> total = lambda logits, labels: jnp.sum(logits)
    >>> moves, energy_at, _ = trained(net, space, 1, total, train_steps=1)(chain, data)
    >>> walk = moves.init(key, jnp.array([True, True, False, False]))
    >>> there = moves.propose(key, 1, walk).walk
    >>> float(energy_at(walk)), there.bits.tolist()  # 0.5 and 1 were kept
    (1.5, [False, True, False, True])
    """

    def proposal(chain: ChainInputs, data: SearchData) -> ChainMoves:
        total = len(data.training.labels)

        def batches(key: Key) -> Split:
            index = stream(key, 0, train_steps, total, net.recipe.batch_size)
            return Split(*(array[index] for array in data.training))

        probe = trained_swaps.trained(
            net.recipe.model,
            net.recipe.loss,
            net.optimizer,
            chain.params,
            chain.stats,
            batches=batches,
            images=data.scored.images,
            labels=data.scored.labels,
            measure=measure,
            prunable=net.prunable,
        )
        moves = trained_swaps.moves(space, most, probe, floor)
        return ChainMoves(moves, lambda walk: walk.learnt.energy, fresh=True)

    return proposal


def by_difference(
    inner: ChainProposal,
    net: SearchedNet,
    space: Space,
    measure: Measure,
    layer_of: Callable[[ChainInputs, SearchData], Layer | None],
) -> ChainProposal:
    """The moves of `swaps`, with `fixed` energies found by difference, see `incremental_energy`.

    Args:
      inner: `swaps` over the space.
      net, measure: of the energy.
      space: of weights.
      layer_of: the layer whose sums are kept; None where it doesn't pay.

    >>> from jaxtickets.nets import functional_plain
    >>> from jaxtickets.search.space import weights
    >>> from jaxtickets.training import Recipe
    >>> params, key = {"w": jnp.array([[2.0], [3.0]])}, jax.random.key(0)
    >>> model = functional_plain(lambda params, images: images @ params["w"], params)
    >>> recipe = Recipe(model, (), (), prepare=(), augment=None, batch_size=1, every=1)
    >>> net = SearchedNet(recipe, optax.sgd(0.5), ("w",), rescale=False)
    >>> seen = Split(jnp.ones((1, 2)), jnp.zeros(1, int))
    >>> chain, data = ChainInputs(key, key, params, {}, (), ()), SearchData(seen, seen, seen)
    >>> def layer_of(chain, data):
    ...     images = data.scored.images
    ...     return incremental_energy.first_layer(model, chain.params, chain.stats, images)
    >>> space, total = weights(params, ("w",)), lambda logits, labels: jnp.sum(logits)
    >>> proposal = by_difference(swaps(space, most=1), net, space, total, layer_of)
    >>> moves, energy_at, _ = proposal(chain, data)
    >>> walk = moves.init(key, jnp.array([True, False]))
    >>> there = jax.jit(moves.propose)(key, 1, walk).walk
    >>> float(energy_at(walk)), float(energy_at(there))
    (2.0, 3.0)
    """

    def proposal(chain: ChainInputs, data: SearchData) -> ChainMoves:
        moves, layer = inner(chain, data).moves, layer_of(chain, data)
        if layer is None:
            return ChainMoves(moves)
        path = layer.path
        (kernel,) = masks.pick(chain.params, (path,))
        columns = layer.columns(chain.params, chain.stats, data.scored.images)

        def scale(kept: Mask) -> Array:
            return energies.scales(kept, (path,))[path] if net.rescale else jnp.float32(1)

        at = incremental_energy.fixed(
            layer,
            space,
            chain.params,
            chain.stats,
            data.scored.images,
            data.scored.labels,
            measure=measure,
            effective=net.effective,
            scale=scale,
        )
        return ChainMoves(incremental_energy.moves(moves, space, layer, kernel, columns), at)

    return proposal


def _floors(space: Space, floor: int) -> tuple[int, ...] | None:
    """The least that each segment keeps; None where it keeps its count, or may be empty."""
    if space.scope == LAYER or not floor:
        return None
    return tuple(min(floor, size) for size in space.sizes)


class SearchProposal(NamedTuple):
    """A proposal by name: how it is made, and what is known of it.

    Attributes:
      make: makes it from what it takes of a `net`, `space`, `most`, `measure` and settings.
      words: what is proposed.
      energy_passes: forward passes of an image that it adds to each energy.
      step_passes: forward passes of an image that it adds to each step, and to the first point.
      fresh: whether it finds each energy on other data.
      needs: what a search with it needs of other settings: name -> values.
    """

    make: Callable[..., ChainProposal]
    words: str
    energy_passes: int = 0
    step_passes: int = 0
    fresh: bool = False
    needs: Mapping[str, tuple[Any, ...]] = {}


_GRADIENT = {"granularity": ("weights",), "energy": ("fixed",)}
_SMOOTH = {"measure": ("cross_entropy",), "tabu": (0,)}
PROPOSALS = {
    "swaps": SearchProposal(swaps, "random swaps"),
    "informed": SearchProposal(
        informed,
        "swaps that the gradient favours",
        step_passes=training_cost(1),
        needs=_GRADIENT | _SMOOTH,
    ),
    "informed_corrected": SearchProposal(
        informed_corrected,
        "swaps that the gradient favours, corrected",
        step_passes=training_cost(1),
        needs=_GRADIENT | _SMOOTH,
    ),
    "trained": SearchProposal(
        trained,
        "rewired: swaps that a short training speaks for",
        energy_passes=training_cost(1) - 1,
        fresh=True,
        needs={
            "granularity": ("weights",),
            "energy": ("trainability",),
            **_SMOOTH,
            "rescale": (False,),
        },
    ),
    "anew": SearchProposal(
        independent,
        "masks drawn anew",
        needs={"granularity": ("weights", "units"), "tabu": (0,)},
    ),
}
"""What chains over bits can propose; over potentials, and in patterns, steps are random."""
