"""Builds the search of `AnnealingSettings` from the parts of `jaxtickets.recipes`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.harness.annealed_settings import DIFFERENCE, AnnealingSettings, unmet
from experiments.harness.named_parts import make_part
from jaxtickets.compress.budget import Costs
from jaxtickets.recipes import annealed_search, search_proposals
from jaxtickets.recipes.annealed_search import BurnIn, Search
from jaxtickets.recipes.search_domain import ChainInputs, SearchData, SearchDomain, search_domain
from jaxtickets.recipes.search_energies import ENERGIES, SearchedNet
from jaxtickets.recipes.search_proposals import PROPOSALS, ChainProposal
from jaxtickets.recipes.search_schedules import SIZES
from jaxtickets.search import annealing, energies, incremental_energy
from jaxtickets.search.acceptance import ACCEPTANCES, running_mean
from jaxtickets.search.incremental_energy import Layer
from jaxtickets.search.interacting_chains import INTERACTIONS
from jaxtickets.search.space import PATTERN
from jaxtickets.training import Recipe
from jaxtickets.types import Array, Model, Params, Prunable, Split, Stats, Wiring


def search_data(
    settings: AnnealingSettings, prepare: Callable, train: Split, validation: Split
) -> SearchData:
    """The data of a search: the first `images` training images are those that the energy scores.

    If the energy has training steps, they see only the other training images.

    Args:
      settings: the search.
      prepare: uint8 images -> normalised images.
      train, validation: the raw data.

    Raises:
      ValueError: there are too few training images for scoring and training.
    """
    total = len(train.labels)
    n = settings.images or total
    trains = ENERGIES[settings.energy].trains
    if n > total or (trains and n == total):
        raise ValueError(f"images={n}: the data set has {total} for scoring and training")
    rest = slice(n, None) if trains else slice(None)
    scored = Split(prepare(jnp.asarray(train.images[:n])), jnp.asarray(train.labels[:n]))
    return SearchData(scored, Split(train.images[rest], train.labels[rest]), validation)


def domain_of(
    settings: AnnealingSettings,
    params: Params,
    prunable: Prunable,
    wiring: Wiring,
    image: tuple[int, ...] = (),
    costs: Costs | None = None,
) -> SearchDomain:
    """The domain that the settings name; see `search_domain` for the other arguments."""
    return search_domain(
        settings.granularity,
        settings.scope,
        params=params,
        prunable=prunable,
        wiring=wiring,
        features=settings.features,
        sides=settings.sides,
        image=image,
        group=settings.group,
        costs=costs,
    )


def first_layer(
    settings: AnnealingSettings,
    model: Model,
    params: Params,
    stats: Stats,
    images: Array,
    prunable: Prunable,
    most: int,
) -> Layer | None:
    """The layer whose sums are updated by differences; None if each energy is computed in full.

    `auto` chooses differences on CPUs only, since sequential additions are slow on accelerators.

    Args:
      settings: the search.
      model, params, stats, images: the net and its input; only shapes and dtypes matter.
      prunable: the leaves that are searched.
      most: the largest swap.

    Raises:
      ValueError: the settings ask for differences, but the net's first layer is not dense or not
        prunable.
    """
    asked = settings.evaluation == "difference"
    if settings.evaluation == "plain" or unmet(settings, DIFFERENCE):
        return None
    if not asked and jax.default_backend() != "cpu":
        return None
    layer = incremental_energy.first_layer(model, params, stats, images)
    if layer is None or layer.path not in prunable:
        if asked:
            raise ValueError("evaluation=difference: the net has no dense, pruned first layer")
        return None
    smallest = 1 if SIZES[settings.sizes].shrinks else most
    return layer if asked or incremental_energy.pays(layer, smallest, settings.chunk) else None


def build(
    settings: AnnealingSettings,
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    where: SearchDomain,
    prunable: Prunable,
    most: int,
) -> Search:
    """Builds the search that the settings name.

    Args:
      settings: the search.
      recipe: the net, and the training of the trainability energy.
      optimizer: the optimiser of that training.
      where: the domain of the chains.
      prunable: the leaves that `rescale` rescales.
      most: the largest swap, see `annealed_start.largest_swap`.
    """
    net = SearchedNet(recipe, optimizer, prunable, settings.rescale)
    known = vars(settings) | {
        "net": net,
        "space": where.space,
        "most": most,
        "measure": energies.MEASURES[settings.measure],
    }
    acceptances = ACCEPTANCES | {"running_mean": running_mean(settings.running_start or None)}
    energy, make_interaction = ENERGIES[settings.energy], INTERACTIONS[settings.interaction]
    return annealed_search.build(
        where,
        proposal=_proposal(settings, net, where, known),
        energy=make_part(energy.make, known),
        rules=annealing.Rules(
            accept=acceptances[settings.accept],
            target=settings.target if SIZES[settings.sizes].adapts else None,
        ),
        prepare=recipe.prepare,
        chunk=settings.chunk,
        validation=make_part(energy.validation, known),
        floor=settings.floor,
        burn_in=None if settings.temperature else BurnIn(settings.burn_in, settings.burn_in_accept),
        interaction=make_part(make_interaction, known) if make_interaction else None,
    )


def _proposal(
    settings: AnnealingSettings, net: SearchedNet, where: SearchDomain, known: Mapping[str, Any]
) -> ChainProposal:
    """The moves of the chains; they update the first layer by differences where possible."""
    if where.fields is not None:
        return search_proposals.potentials(where.fields, settings.size)
    if where.space.scope == PATTERN:
        return search_proposals.pattern_swaps(where.space, known["most"])
    proposal = make_part(PROPOSALS[settings.proposal].make, known)
    if unmet(settings, DIFFERENCE):
        return proposal

    def layer_of(chain: ChainInputs, data: SearchData) -> Layer | None:
        return first_layer(
            settings,
            model=net.recipe.model,
            params=chain.params,
            stats=chain.stats,
            images=data.scored.images,
            prunable=net.prunable,
            most=known["most"],
        )

    return search_proposals.by_difference(
        proposal, net, where.space, measure=known["measure"], layer_of=layer_of
    )
