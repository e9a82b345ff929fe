"""Annealed tickets: a search over the masks of a net that isn't trained, put together by name.

`Settings` names the parts; `begin` makes a chain and `chunk` advances it, both for one chain and
pure, to be batched over chains, seeds and densities by `runs`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import allocation, masks, schedules
from jaxtickets.allocation import ALLOCATIONS
from jaxtickets.criteria import Evidence, find
from jaxtickets.data.batches import stream
from jaxtickets.protocols.ground import GRANULARITIES, Ground, Row, ground, mask_at
from jaxtickets.search import (
    annealing,
    chains,
    difference,
    energies,
    fields,
    informed,
    rewired,
    swaps,
    together,
)
from jaxtickets.search import space as spaces
from jaxtickets.search.acceptance import ACCEPTANCES
from jaxtickets.search.chains import Chain
from jaxtickets.search.difference import Layer, Walk
from jaxtickets.search.fields import Field
from jaxtickets.search.moves import Moves
from jaxtickets.search.space import Space
from jaxtickets.search.together import INTERACTIONS
from jaxtickets.settings import check as check_options
from jaxtickets.settings import option
from jaxtickets.training import Recipe
from jaxtickets.types import (
    Array,
    Key,
    Mask,
    Model,
    Params,
    Prunable,
    PyTree,
    Scores,
    Split,
    Stats,
    Wiring,
)

SIZES = ("constant", "geometric", "sawtooth", "adaptive")
TEMPERATURES = (*schedules.SCHEDULES, "levels")
ENERGIES = ("fixed", "minibatch", "trainability")
PROPOSALS = ("swaps", "informed", "informed_corrected", "trained")
EVALUATIONS = ("auto", "plain", "difference")
DIFFERENCE = {"granularity": "weights", "energy": "fixed", "proposal": "swaps"}
"""What energies by difference ask of the other settings."""

_SHARE = "a number, or a share of the ones if below 1; 0: all; for fields nats"


@dataclass(frozen=True)
class Settings:
    """A search by names and numbers; each field is also a flag of the same name."""

    granularity: str = option("weights", "bits of these, or fields of potentials", GRANULARITIES)
    scope: str = option("layer", "whether layers keep their counts", spaces.SCOPES)
    allocation: str = option("uniform", "counts of the first mask", tuple(ALLOCATIONS))
    start: str = option("", "of weights: the criterion of the first mask; empty: random bits")
    floor: int = option(1, "least number of ones in each layer", least=0)
    features: tuple = option((fields.CHANCE, "large_init"), "of fields: chance, and criteria")
    mix: str = option("1,1", "of fields: what each feature counts at first")
    pooled: str = option("snip", "the criterion that the first field pools; empty: a flat field")
    sides: tuple = option(("input",), "of fields: sides of layers whose units have potentials")
    steps: int = option(500, "steps of each chain", least=1)
    chunk: int = option(20, "steps between two looks at the validation data", least=1)
    proposal: str = option(
        "swaps", "random, or those that the gradient favours, or a training's end", PROPOSALS
    )
    candidates: int = option(2000, "random pairs that informed swaps are chosen from", least=1)
    size: float = option(0.1, f"ones that the first swap switches off: {_SHARE}", least=0)
    size_end: float = option(0.001, f"and the last swap, if geometric: {_SHARE}", least=0)
    sizes: str = option("geometric", "how the swap size changes", SIZES)
    target: float = option(0.25, "acceptance rate that adaptive sizes aim at")
    energy: str = option("fixed", "images that masks are scored on", ENERGIES)
    images: int = option(250, "training images that masks are scored on; 0: all", least=0)
    measure: str = option("cross_entropy", "what is lowered", tuple(energies.MEASURES))
    evaluation: str = option("auto", "of the first layer: whole, or what swaps change", EVALUATIONS)
    rescale: bool = option(True, "divide surviving weights by sqrt(layer density)")
    train_steps: int = option(20, "masked training steps of the trainability energy", least=1)
    accept: str = option("metropolis", "acceptance rule", tuple(ACCEPTANCES))
    running_start: float = option(0.95, "what the mean of running_mean starts at")
    temperature: float = option(0.0, "start, in units of the energy; 0: estimated", least=0)
    temperature_ratio: float = option(0.01, "end temperature over start temperature")
    temperatures: str = option("geometric", "how the temperature falls", TEMPERATURES)
    cooling: float = option(0.999, "factor from level to level, if temperatures=levels")
    level_first: float = option(1.0, "steps of the first level", least=1)
    level_growth: float = option(1.005, "factor of a level's steps from level to level", least=1)
    level_most: float = option(50.0, "most steps of a level", least=1)
    reheat: int = option(0, "steps after which the temperature begins again; 0: never", least=0)
    burn_in: int = option(10, "neighbours that the start temperature is estimated from", least=1)
    burn_in_accept: float = option(0.05, "share of worse neighbours accepted at the start")
    tabu: int = option(0, "recent masks that are not to be met again", least=0)
    tries: int = option(20, "draws for a swap that tabu and floor allow", least=1)
    interaction: str = option(
        "none", "what a seed's chains do for each other after a chunk", tuple(INTERACTIONS)
    )
    ladder: float = option(10.0, "of exchange, the hottest temperature over the coldest", least=1)
    replaced: float = option(0.25, "of crossover and restart, the share of chains", least=0)


class Sight(NamedTuple):
    """The data that a search may see: arrays, the same for all chains. Never test data.

    Attributes:
      scored: images (float, normalised) and labels that masks are scored on.
      training: raw images and labels for minibatches and training steps.
      validation: raw images and labels that choose among the chain's best masks.
    """

    scored: Split
    training: Split
    validation: Split


def sight(settings: Settings, prepare: Callable, train: Split, validation: Split) -> Sight:
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
    return Sight(scored, Split(train.images[rest], train.labels[rest]), validation)


def ground_of(
    settings: Settings,
    params: Params,
    prunable: Prunable,
    wiring: Wiring,
    image: tuple[int, ...] = (),
) -> Ground:
    """The ground that the settings name; `image` is the shape of the net's images."""
    where = settings.granularity, settings.scope, params, prunable, wiring
    return ground(*where, settings.features, settings.sides, image)


_choose = jax.jit(spaces.choose, static_argnums=(0, 3))


def first_bits(
    settings: Settings,
    key: Key,
    space: Space,
    density: float,
    evidence: Evidence | None = None,
) -> Array:
    """Bits of the density, allocated over the segments as asked for; key consumed.

    Random ones, or with `evidence` those that `settings.start` scores highest at its first weights.

    Raises:
      ValueError: the density leaves a segment with nothing, or less than the floor.
    """
    if not 0 < density < 1:
        raise ValueError(f"density {density} is outside (0, 1): there is nothing to search")
    shapes = dict(zip(space.names, space.shapes, strict=True))
    keep = ALLOCATIONS[settings.allocation](shapes, density, settings.floor)
    scores = jax.random.uniform(key, (space.size,))
    if settings.start and evidence is not None:
        untrained = evidence._replace(params=evidence.init_params)
        scores = jax.jit(lambda key: space.pool(find(settings.start)(key, untrained)))(key)
    bits = _choose(space, scores, keep, settings.floor)
    counts = spaces.counts(space, bits).tolist()
    allocation.check(dict(zip(space.names, counts, strict=True)))
    return bits


def first_field(
    settings: Settings, key: Key, where: fields.Space, evidence: Evidence
) -> tuple[tuple[Scores, ...], Field]:
    """The features of a chain's fields, and its first field; key consumed."""
    feature_key, score_key = jax.random.split(key)
    features = fields.features(feature_key, where, evidence)
    if not settings.pooled:
        return features, fields.flat(where, _mix(settings))
    untrained = evidence._replace(params=evidence.init_params)
    scores = find(settings.pooled)(score_key, untrained)
    return features, fields.pooled(where, scores, _mix(settings))


def _mix(settings: Settings) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in settings.mix.split(","))
    except ValueError:
        raise ValueError(f"mix={settings.mix}: must be numbers, such as 1,0.5") from None


def ticks(settings: Settings, ones: int, most: int) -> annealing.Tick:
    """The plan of a chain with `ones` ones, whose largest swap is `most`; of a field, in nats."""
    steps = settings.steps
    period = settings.reheat or steps
    once = schedules.growing_levels(
        period, settings.level_first, settings.level_growth, settings.level_most
    )
    levels = np.resize(once, steps)  # begun again when reheated
    start = settings.temperature or 1.0
    if settings.temperatures == "levels":
        temperature = schedules.table((start * settings.cooling**levels).astype(np.float32))
    else:
        shape = schedules.SCHEDULES[settings.temperatures]
        temperature = shape(start, period, start * settings.temperature_ratio)
        temperature = schedules.reheat(temperature, period)
    whole = settings.granularity != "fields"
    first, last = ends = settings.size, settings.size_end
    if whole:
        first, last = (min(swap_size(size, ones), most) for size in ends)
    if settings.sizes == "sawtooth":
        tooth = schedules.sawtooth(int(levels.max()) + 1, int(first))
        size = schedules.table(np.minimum(tooth[levels], most).astype(np.float32))
    elif settings.sizes == "geometric":
        size = schedules.geometric(first, steps, min(last, first))
    else:
        size = schedules.constant(first, steps)
    begins = (np.diff(levels, prepend=-1) != 0).astype(np.float32)
    level = schedules.table(begins) if settings.temperatures == "levels" else None
    return annealing.plan(steps, temperature, size, level, whole)


def check(settings: Settings) -> None:
    """Raises ValueError, in one line, for a value that can't be."""
    check_options(settings)
    if settings.steps % settings.chunk:
        raise ValueError(f"steps={settings.steps}: must be a multiple of chunk={settings.chunk}")
    for name in ("target", "burn_in_accept", "temperature_ratio", "cooling"):
        if not 0 < getattr(settings, name) <= 1:
            raise ValueError(f"{name}={getattr(settings, name)}: must be in (0, 1]")
    if settings.proposal != "swaps":
        needed = {
            "granularity": "weights",
            "energy": "fixed",
            "measure": "cross_entropy",
            "tabu": 0,
        }
        if settings.proposal == "trained":
            needed |= {"energy": "trainability", "rescale": False}
        _check_needs(settings, "proposal", needed)
    if settings.evaluation == "difference":
        _check_needs(settings, "evaluation", DIFFERENCE)
    if settings.start:
        try:
            find(settings.start)
        except ValueError as error:
            raise ValueError(f"start: {error}") from error
        _check_needs(settings, "start", {"granularity": "weights"})
    if settings.granularity == "fields":
        if not settings.size > 0 < settings.size_end:
            raise ValueError(f"size={settings.size}: fields move by nats, above 0")
        if settings.sizes == "sawtooth" or settings.tabu:
            raise ValueError("granularity=fields: has no sawtooth of sizes, and no tabu")
        if len(_mix(settings)) != len(settings.features):
            raise ValueError(f"mix={settings.mix}: one number for each of the features")
        if settings.pooled:
            find(settings.pooled)
    if settings.interaction != "none":
        if settings.energy == "minibatch" or settings.proposal == "trained":
            raise ValueError(
                f"interaction={settings.interaction}: compares energies, and with energy=minibatch "
                "or proposal=trained each is of other images"
            )
        if settings.interaction == "exchange" and settings.ladder == 1:
            raise ValueError("ladder=1.0: must be above 1, or all rungs are one")
        if settings.interaction == "crossover" and settings.granularity == "fields":
            raise ValueError("interaction=crossover: crosses bits, and granularity=fields has none")
        if settings.replaced >= 1:
            raise ValueError(f"replaced={settings.replaced}: a share of the chains, below 1")
    if settings.burn_in_accept == 1:
        raise ValueError("burn_in_accept=1.0: below 1, or the start temperature is infinite")


def _check_needs(settings: Settings, name: str, needed: Mapping[str, Any]) -> None:
    for other, value in needed.items():
        if getattr(settings, other) != value:
            raise ValueError(f"{name}={getattr(settings, name)}: needs {other}={value}")


def first_layer(
    settings: Settings,
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
    if settings.evaluation == "plain" or not possible:
        return None
    if not asked and jax.default_backend() != "cpu":
        return None
    layer = difference.first_layer(model, params, stats, images)
    if layer is None or layer.path not in prunable:
        if asked:
            raise ValueError("evaluation=difference: the net has no dense, pruned first layer")
        return None
    smallest = most if settings.sizes == "constant" else 1  # other sizes shrink
    return layer if asked or difference.pays(layer, smallest, settings.chunk) else None


class Meeting(NamedTuple):
    """What the chains of a group do together; both functions are of rows and chains stacked.

    Attributes:
      begin: `begin(chains) -> chains`, before the first chunk.
      meet: `meet(rows, chains, start, sight) -> chains`, before the chunk that begins at a step.
    """

    begin: Callable[[Chain], Chain]
    meet: Callable[[Row, Chain, Array, Sight], Chain]


class Search(NamedTuple):
    """A search put together: pure functions, the first two for one chain.

    Attributes:
      begin: `begin(row, sight) -> Chain`.
      chunk: `chunk(row, chain, start, sight) -> (Chain, infos)`: runs the ticks
        `start ... start + settings.chunk - 1`; the infos are stacked.
      meeting: what the chains of a group do together, if anything.
    """

    begin: Callable[[Row, Sight], Chain]
    chunk: Callable[..., tuple[Chain, annealing.Info]]
    meeting: Meeting | None = None


def build(
    settings: Settings,
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    where: Ground,
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
      most: the largest swap, see `swaps.most`.
    """
    rules = annealing.Rules(
        accept=ACCEPTANCES[settings.accept],
        running_start=settings.running_start if settings.accept == "running_mean" else None,
        target=settings.target if settings.sizes == "adaptive" else None,
    )
    space, floor = where.space, _floors(settings, where.space)
    effective = effective_params(settings, prunable)

    def parts(row: Row, sight: Sight) -> tuple[energies.Energy, annealing.Kernel]:
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
            energy = _energy(settings, recipe, optimizer, effective, row, sight, sight.scored)
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
        layer: Layer, walked: Moves, row: Row, sight: Sight
    ) -> tuple[Moves, Callable[[Walk], Array]]:
        (kernel,) = masks.pick(row.params, (layer.path,))
        columns = layer.columns(row.params, row.stats, sight.scored.images)

        def scale(kept: Mask) -> Array:
            one = jnp.float32(1)
            return energies.scales(kept, (layer.path,))[layer.path] if settings.rescale else one

        at = difference.fixed(
            layer,
            space,
            row.params,
            row.stats,
            *sight.scored,
            energies.MEASURES[settings.measure],
            effective,
            scale,
        )
        return difference.moves(walked, space, layer, kernel, columns), at

    def masked(row: Row) -> Callable[[PyTree], Mask]:
        return lambda point: mask_at(where, settings.floor, row, point)

    def rewiring(row: Row, sight: Sight) -> Moves:
        n = len(sight.training.labels)

        def batches(key: Key) -> Split:
            index = stream(key, 0, settings.train_steps, n, recipe.batch_size)
            return Split(*(array[index] for array in sight.training))

        probe = rewired.trained(
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
        return rewired.moves(space, most, probe, settings.floor)

    def moves(row: Row, sight: Sight) -> Moves:
        if where.fields is not None:
            return fields.moves(where.fields, max(settings.size, 1e-3))
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

    def begin(row: Row, sight: Sight) -> Chain:
        _, kernel = parts(row, sight)
        init_key, burn_key, _ = jax.random.split(row.key, 3)
        state = kernel.init(init_key, row.start)
        if settings.temperature == 0:
            samples, share = settings.burn_in, settings.burn_in_accept
            state = annealing.burn_in(kernel, burn_key, state, row.ticks.size[0], samples, share)
        return chains.begin(state)

    def chunk(row: Row, chain: Chain, start: Array, sight: Sight) -> tuple[Chain, annealing.Info]:
        energy, kernel = parts(row, sight)
        seen = Split(recipe.prepare(sight.validation.images), sight.validation.labels)
        validation = _energy(settings, recipe, optimizer, effective, row, sight, seen)

        def validate(kept: Mask) -> Array:
            return validation.evaluate(row.key, kept)  # no fresh draw: the key goes unused

        now = jax.tree.map(
            lambda t: jax.lax.dynamic_slice_in_dim(t, start, settings.chunk), row.ticks
        )
        key = jax.random.split(row.key, 3)[2]
        return chains.chunk(kernel, energy, masked(row), validate, key, chain, now)

    def kernel_of(row: Row, sight: Sight) -> annealing.Kernel:
        return parts(row, sight)[1]

    return Search(begin, chunk, _meeting(settings, space, kernel_of))


def _meeting(
    settings: Settings, space: Space, kernel_of: Callable[[Row, Sight], annealing.Kernel]
) -> Meeting | None:
    """The meetings that the settings name."""
    made = INTERACTIONS[settings.interaction]
    if made is None:
        return None
    rules = together.Rules(settings.ladder, settings.replaced, space, settings.floor)
    group = made(rules)

    def begin(chain: Chain) -> Chain:
        state, memory = group.begin(chain.state)
        return chain._replace(state=state, memory=memory)

    def meet(rows: Row, chain: Chain, start: Array, sight: Sight) -> Chain:
        row = jax.tree.map(lambda leaf: leaf[0], rows)
        planned = row.ticks.temperature
        between = together.Between(
            round=start // settings.chunk,
            rounds=jnp.int32(settings.steps // settings.chunk),
            temperature=planned[start - 1],
            next=planned[start],
        )
        key = jax.random.fold_in(jax.random.fold_in(row.key, settings.steps), start)
        kernel = kernel_of(row, sight)
        state, memory = group.meet(key, kernel, chain.state, chain.memory, between)
        return chain._replace(state=state, memory=memory)

    return Meeting(begin, meet)


def _learnt(walk: rewired.Walk) -> Array:
    """The energy at a walk that has been trained."""
    return walk.learnt.energy


def effective_params(settings: Settings, prunable: Prunable) -> Callable[[Mask, Params], Params]:
    """`(mask, params) -> params` as the search sees them: masked, and rescaled if asked for."""
    return lambda mask, params: masks.apply(mask, ticket_params(settings, mask, params, prunable))


def ticket_params(settings: Settings, mask: Mask, params: Params, prunable: Prunable) -> Params:
    """The dense parameters of a ticket with that mask: rescaled if asked for, not masked."""
    return energies.rescale(mask, params, prunable) if settings.rescale else params


def _floors(settings: Settings, space: Space) -> tuple[int, ...] | None:
    if settings.scope == "layer" or not settings.floor:
        return None
    return tuple(min(settings.floor, size) for size in space.sizes)


def _energy(
    settings: Settings,
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    effective: Callable[[Mask, Params], Params],
    row: Row,
    sight: Sight,
    on: Split,
) -> energies.Energy:
    """The energy of fixed images: after training steps for trainability, else as weights stand."""
    measure = energies.MEASURES[settings.measure]
    if settings.energy != "trainability":
        return energies.fixed(recipe.model, row.params, row.stats, *on, measure, effective)
    order_key, noise_key = jax.random.split(jax.random.key(0))
    n = len(sight.training.labels)
    index = stream(order_key, 0, settings.train_steps, n, recipe.batch_size)
    return energies.trainability(
        recipe.model,
        recipe.loss,
        optimizer,
        row.params,
        row.stats,
        Split(*(array[index] for array in sight.training)),
        *on,
        measure,
        noise_key,
        effective,
    )


def swap_size(asked: float, ones: int) -> int:
    """A swap size from a flag: 0 means `ones`, below 1 a share of them, else a number."""
    if not asked:
        return ones
    return max(1, round(asked * ones if asked < 1 else asked))


def largest_swap(settings: Settings, space: Space, bits: Array) -> int:
    """The static bound of swap sizes, for `bits[rows, n]`.

    Adaptive sizes stop at half of what can be swapped: near the whole, a walk would flip to and fro
    between a mask and its complement. Informed swaps are no more than their candidates.
    """
    room = swaps.most(space, np.asarray(bits))
    if settings.sizes == "adaptive":
        room = max(1, room // 2)
    if settings.proposal.startswith("informed"):
        room = min(room, settings.candidates)
    return min(swap_size(settings.size, int(np.sum(bits, axis=-1).max())), room)
