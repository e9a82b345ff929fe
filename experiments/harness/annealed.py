"""Annealed tickets: a search over the masks of a net that isn't trained, put together by name.

`AnnealingSettings` names the parts; `begin` makes a chain and `chunk` advances it, both for one
chain and pure, to be batched over chains, seeds and densities by `runs`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.harness.annealed_settings import DIFFERENCE, AnnealingSettings
from jaxtickets import losses, masks
from jaxtickets.compress.budget import Costs
from jaxtickets.data.batches import stream
from jaxtickets.recipes.search_domain import ChainInputs, SearchDomain, mask_at, search_domain
from jaxtickets.search import (
    annealing,
    chains,
    energies,
    fields,
    incremental_energy,
    independent_draws,
    informed,
    interacting_chains,
    patterns,
    swaps,
    trained_swaps,
)
from jaxtickets.search.acceptance import ACCEPTANCES, running_mean
from jaxtickets.search.chains import Chain, ChunkInfo
from jaxtickets.search.incremental_energy import Layer, Walk
from jaxtickets.search.interacting_chains import INTERACTIONS
from jaxtickets.search.moves import Moves
from jaxtickets.search.space import PATTERN, Space
from jaxtickets.training import Recipe
from jaxtickets.types import (
    Array,
    Key,
    Mask,
    Model,
    Params,
    Prunable,
    PyTree,
    Split,
    Stats,
    Wiring,
)


class SearchData(NamedTuple):
    """The data that a search may see: arrays, the same for all chains. Never test data.

    Attributes:
      scored: images (float, normalised) and labels that masks are scored on.
      training: raw images and labels for minibatches and training steps.
      validation: raw images and labels that choose among the chain's best masks.
    """

    scored: Split
    training: Split
    validation: Split


def search_data(
    settings: AnnealingSettings, prepare: Callable, train: Split, validation: Split
) -> SearchData:
    """Cuts the first `images` training images off for scoring.

    For `trainability` the training steps see the rest alone. Else the rest stays with the others.

    Raises:
      ValueError: there are fewer training images than are asked for.
    """
    total = len(train.labels)
    n = settings.images or total
    if n > total or (settings.energy == "trainability" and n == total):
        raise ValueError(f"images={n}: the data set has {total} for scoring and training")
    rest = slice(n, None) if settings.energy == "trainability" else slice(None)
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
    """The ground that the settings name; see `ground` for the rest."""
    where = settings.granularity, settings.scope, params, prunable, wiring
    return search_domain(*where, settings.features, settings.sides, image, settings.group, costs)


def first_layer(
    settings: AnnealingSettings,
    model: Model,
    params: Params,
    stats: Stats,
    images: Array,
    prunable: Prunable,
    most: int,
) -> Layer | None:
    """The layer whose sums swaps change, if energies are by difference; None if they are plain.

    `auto` takes differences on CPUs, where they pay: additions one after another are no work for
    an accelerator.

    Args:
      settings: of the search.
      model, params, stats, images: the net, of the shapes to come; values don't matter.
      prunable: the leaves that are searched.
      most: the largest swap.

    Raises:
      ValueError: differences are asked for, and the net's first layer isn't dense or isn't pruned.
    """
    asked = settings.evaluation == "difference"
    possible = all(getattr(settings, name) == value for name, value in DIFFERENCE.items())
    possible &= settings.scope != PATTERN
    if settings.evaluation == "plain" or not possible:
        return None
    if not asked and jax.default_backend() != "cpu":
        return None
    layer = incremental_energy.first_layer(model, params, stats, images)
    if layer is None or layer.path not in prunable:
        if asked:
            raise ValueError("evaluation=difference: the net has no dense, pruned first layer")
        return None
    smallest = most if settings.sizes == "constant" else 1  # other sizes shrink
    return layer if asked or incremental_energy.pays(layer, smallest, settings.chunk) else None


class Meeting(NamedTuple):
    """What the chains of a group do together; both functions are of stacked chains.

    Attributes:
      begin: `begin(chains) -> chains`, before the first chunk.
      meet: `meet(row, chains, start, sight) -> chains`, before the chunk that begins at a step;
        the row is that of the group's first chain.
    """

    begin: Callable[[Chain], Chain]
    meet: Callable[[ChainInputs, Chain, Array, SearchData], Chain]


class Search(NamedTuple):
    """A search put together: pure functions, the first two for one chain.

    Attributes:
      begin: `begin(row, sight) -> Chain`.
      chunk: `chunk(row, chain, start, sight) -> (Chain, infos, ChunkInfo)`: runs the ticks
        `start ... start + settings.chunk - 1`; the infos are stacked.
      meeting: what the chains of a group do together, if anything.
    """

    begin: Callable[[ChainInputs, SearchData], Chain]
    chunk: Callable[..., tuple[Chain, annealing.Info, ChunkInfo]]
    meeting: Meeting | None = None


def build(
    settings: AnnealingSettings,
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    where: SearchDomain,
    prunable: Prunable,
    most: int,
) -> Search:
    """The search that the settings name.

    Args:
      settings: what is searched and how.
      recipe: the net, and how training steps of the trainability energy are done.
      optimizer: of these steps.
      where: the ground.
      prunable: the leaves that `rescale` rescales.
      most: the largest swap, see `annealed_start.largest_swap`.
    """
    mean, known = settings.accept == "running_mean", ACCEPTANCES[settings.accept]
    rules = annealing.Rules(
        accept=running_mean(settings.running_start or None) if mean else known,
        target=settings.target if settings.sizes == "adaptive" else None,
    )
    space, floor = where.space, _floors(settings, where.space)
    effective = effective_params(settings, prunable)

    def energy_on(row: ChainInputs, sight: SearchData, images: Split) -> energies.Energy:
        on = row, sight, images
        return _energy(settings, recipe, optimizer, effective, prunable, *on)

    def parts(row: ChainInputs, sight: SearchData) -> tuple[energies.Energy, annealing.Kernel]:
        if settings.energy == "minibatch":
            energy = energies.minibatch(
                recipe.model,
                row.params,
                row.stats,
                *sight.training,
                measure=energies.MEASURES[settings.measure],
                prepare=recipe.prepare,
                batch_size=len(sight.scored.labels),
                effective=effective,
            )
        else:
            energy = energy_on(row, sight, sight.scored)
        layer = first_layer(
            settings, recipe.model, row.params, row.stats, sight.scored.images, prunable, most
        )
        if settings.proposal == "trained":
            told = energy._replace(fresh=True)  # other batches for each proposal
            walked = rewiring(row, sight)
            return told, annealing.build(walked, masked(row), told, rules, _learnt)
        walked, at = moves(row, sight), None
        if layer is not None:
            walked, at = by_difference(layer, walked, row, sight)
        return energy, annealing.build(walked, masked(row), energy, rules, at)

    def by_difference(
        layer: Layer, walked: Moves, row: ChainInputs, sight: SearchData
    ) -> tuple[Moves, Callable[[Walk], Array]]:
        (kernel,) = masks.pick(row.params, (layer.path,))
        columns = layer.columns(row.params, row.stats, sight.scored.images)

        def scale(kept: Mask) -> Array:
            one = jnp.float32(1)
            return energies.scales(kept, (layer.path,))[layer.path] if settings.rescale else one

        at = incremental_energy.fixed(
            layer,
            space,
            row.params,
            row.stats,
            *sight.scored,
            energies.MEASURES[settings.measure],
            effective,
            scale,
        )
        return incremental_energy.moves(walked, space, layer, kernel, columns), at

    def masked(row: ChainInputs) -> Callable[[PyTree], Mask]:
        return lambda point: mask_at(where, settings.floor, row, point)

    def rewiring(row: ChainInputs, sight: SearchData) -> Moves:
        n = len(sight.training.labels)

        def batches(key: Key) -> Split:
            index = stream(key, 0, settings.train_steps, n, recipe.batch_size)
            return Split(*(array[index] for array in sight.training))

        probe = trained_swaps.trained(
            recipe.model,
            recipe.loss,
            optimizer,
            row.params,
            row.stats,
            batches,
            *sight.scored,
            energies.MEASURES[settings.measure],
            prunable,
        )
        return trained_swaps.moves(space, most, probe, settings.floor)

    def moves(row: ChainInputs, sight: SearchData) -> Moves:
        if where.fields is not None:
            return fields.moves(where.fields, max(settings.size, 1e-3))
        if space.scope == PATTERN:
            return patterns.moves(space, most)
        if settings.proposal == "anew":
            return independent_draws.moves(space, most, floor)
        if settings.proposal == "swaps":
            return swaps.moves(space, most, floor, settings.tabu, settings.tries)
        slope = informed.fixed(
            recipe.model,
            row.params,
            row.stats,
            *sight.scored,
            energies.MEASURES[settings.measure],
            prunable,
            lambda kept, params: ticket_params(settings, kept, params, prunable),
        )
        corrected = settings.proposal == "informed_corrected"
        return informed.moves(space, most, slope, settings.candidates, corrected, floor)

    def begin(row: ChainInputs, sight: SearchData) -> Chain:
        _, kernel = parts(row, sight)
        init_key, burn_key, _ = jax.random.split(row.key, 3)
        state = kernel.init(init_key, row.start)
        if settings.temperature == 0:
            samples, share = settings.burn_in, settings.burn_in_accept
            state = annealing.burn_in(kernel, burn_key, state, row.ticks.size[0], samples, share)
        return chains.begin(state)

    def chunk(
        row: ChainInputs, chain: Chain, start: Array, sight: SearchData
    ) -> tuple[Chain, annealing.Info, ChunkInfo]:
        energy, kernel = parts(row, sight)
        seen = Split(recipe.prepare(sight.validation.images), sight.validation.labels)
        validation = energy_on(row, sight, seen)

        def validate(kept: Mask) -> Array:
            return validation.evaluate(row.key, kept)  # no fresh draw: the key goes unused

        now = jax.tree.map(
            lambda t: jax.lax.dynamic_slice_in_dim(t, start, settings.chunk), row.ticks
        )
        key = jax.random.split(row.key, 3)[2]
        return chains.chunk(kernel, energy, masked(row), validate, key, chain, now)

    def kernel_of(row: ChainInputs, sight: SearchData) -> annealing.Kernel:
        return parts(row, sight)[1]

    return Search(begin, chunk, _meeting(settings, space, kernel_of))


def _meeting(
    settings: AnnealingSettings,
    space: Space,
    kernel_of: Callable[[ChainInputs, SearchData], annealing.Kernel],
) -> Meeting | None:
    """The meetings that the settings name."""
    made = INTERACTIONS[settings.interaction]
    if made is None:
        return None
    rules = interacting_chains.Rules(settings.ladder, settings.replaced, space, settings.floor)
    group = made(rules)

    def begin(chain: Chain) -> Chain:
        state, memory = group.begin(chain.state)
        return chain._replace(state=state, memory=memory)

    def meet(row: ChainInputs, chain: Chain, start: Array, sight: SearchData) -> Chain:
        planned = row.ticks.temperature
        between = interacting_chains.Between(
            rounds=jnp.int32(settings.steps // settings.chunk),
            temperature=planned[start - 1],
            next=planned[start],
        )
        key = jax.random.fold_in(jax.random.split(row.key, 4)[3], start)
        kernel = kernel_of(row, sight)
        state, memory = group.meet(key, kernel, chain.state, chain.memory, between)
        return chain._replace(state=state, memory=memory)

    return Meeting(begin, meet)


def _learnt(walk: trained_swaps.Walk) -> Array:
    """The energy at a walk that has been trained."""
    return walk.learnt.energy


def effective_params(
    settings: AnnealingSettings, prunable: Prunable
) -> Callable[[Mask, Params], Params]:
    """`(mask, params) -> params` as the search sees them: masked, and rescaled if asked for."""
    return lambda mask, params: masks.apply(mask, ticket_params(settings, mask, params, prunable))


def ticket_params(
    settings: AnnealingSettings, mask: Mask, params: Params, prunable: Prunable
) -> Params:
    """The dense parameters of a ticket with that mask: rescaled if asked for, not masked."""
    return energies.rescale(mask, params, prunable) if settings.rescale else params


def _floors(settings: AnnealingSettings, space: Space) -> tuple[int, ...] | None:
    if settings.scope == "layer" or not settings.floor:
        return None
    return tuple(min(settings.floor, size) for size in space.sizes)


def _energy(
    settings: AnnealingSettings,
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    effective: Callable[[Mask, Params], Params],
    prunable: Prunable,
    row: ChainInputs,
    sight: SearchData,
    on: Split,
) -> energies.Energy:
    """The energy that the settings name, on fixed normalised images."""
    measure = energies.MEASURES[settings.measure]
    weights = row.params, row.stats
    order_key, noise_key = jax.random.split(row.energy_key)
    if settings.energy == "orthogonality":
        return energies.orthogonality(row.params, prunable, effective)
    if settings.energy == "gradient_flow":
        cross_entropy = losses.classification(recipe.model, lambda normalised: normalised)
        some = jax.tree.map(lambda a: a[: len(sight.scored.labels)], on)  # a gradient needs memory
        return energies.gradient_flow(cross_entropy, *weights, some, noise_key, effective)
    if settings.energy != "trainability":
        return energies.fixed(recipe.model, *weights, *on, measure, effective)
    n = len(sight.training.labels)
    index = stream(order_key, 0, settings.train_steps, n, recipe.batch_size)
    return energies.trainability(
        recipe.model,
        recipe.loss,
        optimizer,
        *weights,
        Split(*(array[index] for array in sight.training)),
        *on,
        measure,
        noise_key,
        effective,
    )
