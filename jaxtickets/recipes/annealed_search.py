"""A search over the masks of a net, made of its parts: pure functions of a chain, to be batched.

    net = SearchedNet(recipe, optimizer, prunable)
    domain = search_domain("weights", "layer", params, prunable, wiring)
    search = annealed_search.build(
        domain,
        proposal=search_proposals.swaps(domain.space, most=2000),
        energy=search_energies.fixed(net, losses.cross_entropy),
        rules=annealing.Rules(),
        prepare=recipe.prepare,
        chunk=20,
    )
    state = search.begin(chain, data)
    state, infos, end = search.chunk(chain, state, 0, data)

`chain` is a `ChainInputs`, `data` a `SearchData`; `jax.vmap` makes them those of many chains.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.recipes.search_domain import ChainInputs, SearchData, SearchDomain, mask_at
from jaxtickets.recipes.search_energies import ChainEnergy
from jaxtickets.recipes.search_proposals import ChainProposal
from jaxtickets.search import annealing, chains, interacting_chains
from jaxtickets.search.chains import Chain, ChunkInfo
from jaxtickets.search.energies import Energy
from jaxtickets.types import Array, Mask, PyTree, Split


class GroupInteraction(NamedTuple):
    """The interaction of the chains of a group; both functions take stacked chains.

    Attributes:
      begin: `begin(chains) -> chains`, before the first chunk.
      interact: `interact(chain, chains, start, data) -> chains`, before the chunk that begins at
        step `start`; `chain` holds the inputs of the group's first chain.
    """

    begin: Callable[[Chain], Chain]
    interact: Callable[[Any, Chain, Array, Any], Chain]


class Search(NamedTuple):
    """A search put together: pure functions, the first two for one chain.

    `chain` holds a chain's inputs, here a `ChainInputs`, and `data` what the search sees, here a
    `SearchData`; `annealed_training` has its own.

    Attributes:
      begin: `begin(chain, data) -> Chain`.
      chunk: `chunk(chain, state, start, data) -> (Chain, infos, ChunkInfo)`: runs a chunk of steps
        from step `start` on; the infos are stacked.
      interaction: the interaction of the chains of a group; None for independent chains.
    """

    begin: Callable[[Any, Any], Chain]
    chunk: Callable[..., tuple[Chain, annealing.Info, ChunkInfo]]
    interaction: GroupInteraction | None = None


class BurnIn(NamedTuple):
    """How the start temperature is estimated, see `annealing.burn_in`.

    Attributes:
      samples: random neighbours.
      acceptance: the share of worse ones that is accepted.
    """

    samples: int
    acceptance: float


def build(
    domain: SearchDomain,
    proposal: ChainProposal,
    energy: ChainEnergy,
    rules: annealing.Rules,
    prepare: Callable[[Array], Array],
    chunk: int,
    validation: ChainEnergy | None = None,
    floor: int = 0,
    burn_in: BurnIn | None = None,
    interaction: interacting_chains.Interaction | None = None,
) -> Search:
    """The search of these parts.

    Args:
      domain: where chains walk.
      proposal: how they move.
      energy: what they lower.
      rules: how they decide.
      prepare: raw validation images -> normalised images.
      chunk: the number of steps between two evaluations on the validation data.
      validation: what is found on these, of a kind that draws nothing; None: the energy.
      floor: the least that a field keeps in each segment.
      burn_in: estimates the start temperature; None: temperatures are those of the plan.
      interaction: how the chains of a group interact between two chunks; None: they do not.

    >>> from jaxtickets.recipes.search_domain import search_domain
    >>> from jaxtickets.recipes.search_proposals import swaps
    >>> from jaxtickets.search import energies
    >>> params, key = {"w": jnp.array([[1.0, 3.0]])}, jax.random.key(0)
    >>> domain = search_domain("weights", "global", params, ("w",), wiring=())
    >>> lost = energies.saliency(params, ("w",))  # the share of the scores that the mask loses
    >>> search = build(
    ...     domain,
    ...     proposal=swaps(domain.space, most=1),
    ...     energy=lambda chain, data, images: lost,
    ...     rules=annealing.Rules(),
    ...     prepare=lambda images: images,
    ...     chunk=1,
    ... )
    >>> plans = annealing.step_plans(1, temperature=jnp.ones_like, size=jnp.ones_like)
    >>> chain = ChainInputs(key, key, params, {}, jnp.array([True, False]), plans)
    >>> unseen = Split(np.zeros((1, 1)), np.zeros(1, int))
    >>> data = SearchData(unseen, unseen, unseen)
    >>> state, infos, _ = search.chunk(chain, search.begin(chain, data), 0, data)
    >>> state.chosen.tolist(), float(state.chosen_score)  # the only swap is an improvement
    ([False, True], 0.25)
    """
    validated_by = validation or energy

    def masked(chain: ChainInputs) -> Callable[[PyTree], Mask]:
        return lambda point: mask_at(domain, floor, chain, point)

    def parts(chain: ChainInputs, data: SearchData) -> tuple[Energy, annealing.Kernel]:
        moves, energy_at, fresh = proposal(chain, data)
        lowered = energy(chain, data, data.scored)
        lowered = lowered._replace(fresh=lowered.fresh or fresh)
        return lowered, annealing.build(moves, masked(chain), lowered, rules, energy_at)

    def begin(chain: ChainInputs, data: SearchData) -> Chain:
        _, kernel = parts(chain, data)
        init_key, burn_key, _ = jax.random.split(chain.key, 3)
        state = kernel.init(init_key, chain.start)
        if burn_in is not None:
            first = chain.ticks.size[0]
            state = annealing.burn_in(
                kernel,
                burn_key,
                state,
                size=first,
                samples=burn_in.samples,
                acceptance=burn_in.acceptance,
            )
        return chains.begin(state)

    def advance(
        chain: ChainInputs, state: Chain, start: Array, data: SearchData
    ) -> tuple[Chain, annealing.Info, ChunkInfo]:
        lowered, kernel = parts(chain, data)
        seen = Split(prepare(data.validation.images), data.validation.labels)
        validated = validated_by(chain, data, seen)

        def validate(mask: Mask) -> Array:
            return validated.evaluate(chain.key, mask)  # no fresh draw: the key goes unused

        now = jax.tree.map(
            lambda planned: jax.lax.dynamic_slice_in_dim(planned, start, chunk), chain.ticks
        )
        key = jax.random.split(chain.key, 3)[2]
        return chains.chunk(kernel, lowered, masked(chain), validate, key, state, now)

    def interact(chain: ChainInputs, group: Chain, start: Array, data: SearchData) -> Chain:
        assert interaction is not None
        planned = chain.ticks.temperature
        between = interacting_chains.Between(
            rounds=jnp.int32(planned.shape[0] // chunk),
            temperature=planned[start - 1],
            next=planned[start],
        )
        key = jax.random.fold_in(jax.random.split(chain.key, 4)[3], start)
        kernel = parts(chain, data)[1]
        state, memory = interaction.interact(key, kernel, group.state, group.memory, between)
        return group._replace(state=state, memory=memory)

    def begin_interaction(group: Chain) -> Chain:
        assert interaction is not None
        state, memory = interaction.begin(group.state)
        return group._replace(state=state, memory=memory)

    groups = GroupInteraction(begin_interaction, interact) if interaction else None
    return Search(begin, advance, groups)
