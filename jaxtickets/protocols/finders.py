"""Finders: walks to a mask worth training, all under one budget; nothing dense is ever trained.

What they lower is the loss after training: a mask's net is trained for a few steps from the
initialisation and scored on held-out training images. The search goes by successive halving: many
chains begin with few training steps, and phase by phase the better half goes on with twice as many
(Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
2016). A finder says where its chains walk, where they begin, and what they accept.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax

from jaxtickets import losses, schedules
from jaxtickets.allocation import ALLOCATIONS
from jaxtickets.criteria import Evidence, find
from jaxtickets.search import acceptance, annealing, chains, energies, fields, swaps
from jaxtickets.search import space as spaces
from jaxtickets.search.annealing import Info, Tick
from jaxtickets.search.chains import Chain
from jaxtickets.search.energies import Energy, training_cost
from jaxtickets.search.moves import Moves
from jaxtickets.training import Recipe
from jaxtickets.types import Array, Key, Mask, Params, Prunable, PyTree, Scores, Split, Stats


class Finder(NamedTuple):
    """A search by words and numbers; static.

    Attributes:
      walks: `fields` or `bits`.
      accept: the acceptance rule.
      features, mix: of fields; see `fields.features`.
      pooled: the criterion whose means are the first field's potentials; `""`: a flat field.
      sides: the sides of layers with potentials.
      size, size_end: of the first and the last move: nats, or a share of the ones.
      adapted: whether the size follows the acceptance rate, from the first one on.
    """

    walks: str
    accept: acceptance.Accept = acceptance.metropolis
    features: tuple[str, ...] = (fields.CHANCE, "large_init")
    mix: tuple[float, ...] = (1.0, 1.0)
    pooled: str = "snip"
    sides: tuple[str, ...] = ("input",)
    size: float = 0.5
    size_end: float = 0.1
    adapted: bool = False


FINDERS: dict[str, Finder] = {
    "annealed_fields": Finder("fields"),
    "annealed_snip": Finder("fields", features=("snip",), mix=(1.0,), pooled=""),
    "climbed_fields": Finder("fields", acceptance.greedy),
    "annealed_bits": Finder("bits", size=0.1, size_end=0.001),
    "random_search": Finder("bits", acceptance.greedy, size=1.0, size_end=1.0),
}
"""Annealing over fields, from random choice and from SNIP; its controls: hill climbing, annealing
over the bits themselves, and random search, which draws every mask anew."""


class Case(NamedTuple):
    """What one chain is given: arrays.

    Attributes:
      key: the chain's.
      params, stats: at initialisation.
      features: of fields; `()` for bits.
      keep: int32, how many weights are kept.
      start: the first point.
      ticks: the plan of the phase.
    """

    key: Key
    params: Params
    stats: Stats
    features: tuple[Scores, ...]
    keep: Array
    start: PyTree
    ticks: Tick


class Sight(NamedTuple):
    """The data: never test data.

    Attributes:
      held_out: normalised training images that trained nets are scored on.
      batches: raw training images for the steps, `[steps, batch, ...]`, the same for all masks.
      validation: raw images that choose among the masks that were found.
    """

    held_out: Split
    batches: Split
    validation: Split


class Phase(NamedTuple):
    """A part of a search, planned from its budget.

    Attributes:
      chains: of each seed.
      train_steps: of the energy.
      steps: moves of each chain.
      chunk: moves between two looks at the validation data.
      cost: forward passes of one example that all chains of a seed take.
    """

    chains: int
    train_steps: int
    steps: int
    chunk: int
    cost: int


BURN_IN = 5
"""Neighbours that a phase's start temperature is estimated from."""
LOOKS = 4
"""Looks at the validation data in a phase."""


def phases(
    budget: int,
    count: int,
    most: int,
    train_steps: int,
    batch: int,
    held_out: int,
    validation: int,
    begin: int = 0,
) -> list[Phase]:
    """Phases that together cost no more than the budget, each an equal part of it.

    Args:
      budget: forward passes of one example for a seed.
      count: of phases.
      most: chains of the first phase; each has half of those before it, rounded up.
      train_steps: of the first phase; each has twice as many.
      batch: examples of a training step.
      held_out, validation: examples that trained nets are scored on.
      begin: forward passes that a chain's first point takes, see `beginning`.

    Raises:
      ValueError: the budget doesn't pay for one step between looks in each phase.
    """
    made = []
    for i in range(count):
        many, steps = -(-most // 2**i), train_steps * 2**i
        training = training_cost(steps * batch)
        each, look = training + held_out, training + validation
        fixed = (1 + BURN_IN) * each + LOOKS * look + (begin if i == 0 else 0)
        chunk = (budget // count // many - fixed) // (LOOKS * each)
        if chunk < 1:
            least = count * many * (fixed + LOOKS * each)
            raise ValueError(
                f"a budget of {budget} forward passes is too small for {count} phases of {most} "
                f"chains and {train_steps} training steps: {least} at least"
            )
        cost = many * (fixed + LOOKS * chunk * each)
        made.append(Phase(many, steps, LOOKS * chunk, chunk, cost))
    return made


def beginning(finder: Finder, examples: int) -> int:
    """Forward passes that a chain's features and first point take, with so many examples.

    A criterion on data, SNIP, takes a gradient for each place where it stands.
    """
    if finder.walks == "bits":
        return 0
    return training_cost(examples) * [*finder.features, finder.pooled].count("snip")


class Ground(NamedTuple):
    """Where a finder's chains walk; static.

    Attributes:
      finder: the finder.
      prunable: the leaves that are masked.
      fields: the space of fields.
      bits: the space of bits.
      floor: the least that a leaf keeps.
    """

    finder: Finder
    prunable: Prunable
    fields: fields.Space
    bits: spaces.Space
    floor: int


def ground(
    finder: Finder, params: Params, prunable: Prunable, image: tuple[int, ...], floor: int
) -> Ground:
    """The ground of a finder over a net's kernels; `image` is the shape of its inputs."""
    where = fields.space(params, prunable, finder.features, finder.sides, image)
    return Ground(finder, prunable, where, spaces.weights(params, prunable, "layer"), floor)


def begin_at(
    where: Ground, key: Key, evidence: Evidence, density: float
) -> tuple[tuple[Scores, ...], PyTree]:
    """The features of a chain, and its first point. The key is consumed.

    Bits begin as a random mask with Erdős–Rényi-kernel counts.
    """
    finder = where.finder
    feature_key, score_key = jax.random.split(key)
    if finder.walks == "bits":
        shapes = dict(zip(where.bits.names, where.bits.shapes, strict=True))
        keep = ALLOCATIONS["erk"](shapes, density, where.floor)
        scores = jax.random.uniform(score_key, (where.bits.size,))
        return (), spaces.choose(where.bits, scores, keep)
    untrained = evidence._replace(params=evidence.init_params)
    features = fields.features(feature_key, where.fields, untrained)
    if not finder.pooled:
        return features, fields.flat(where.fields, finder.mix)
    scores = find(finder.pooled)(score_key, untrained)
    return features, fields.pooled(where.fields, scores, finder.mix)


def mask_of(where: Ground, case: Case, point: PyTree) -> Mask:
    """The mask of a point of a chain's walk."""
    if where.finder.walks == "bits":
        return where.bits.mask(point)
    return fields.mask(where.fields, case.features, case.keep, where.floor, point)


def ticks(where: Ground, phase: Phase, keep: int) -> Tick:
    """The plan of a phase: temperatures and sizes fall geometrically, temperatures a hundredfold.

    Sizes of swaps are shares of the ones; of fields, nats.
    """
    finder, bits = where.finder, where.finder.walks == "bits"
    ends = [max(1.0, share * keep) if bits else share for share in (finder.size, finder.size_end)]
    temperature = schedules.geometric(1.0, phase.steps, 0.01)
    size = schedules.geometric(ends[0], phase.steps, ends[1])
    return annealing.plan(phase.steps, temperature, size, whole=bits)


class Search(NamedTuple):
    """`begin(case, sight) -> Chain` and `chunk(case, chain, start, sight) -> (Chain, infos)`."""

    begin: Callable[[Case, Sight], Chain]
    chunk: Callable[..., tuple[Chain, Info]]


def build(
    where: Ground, phase: Phase, recipe: Recipe, optimizer: optax.GradientTransformation, most: int
) -> Search:
    """A phase of a finder's search, pure and for one chain.

    Args:
      where: the ground.
      phase: the plan.
      recipe: the net and how it is trained.
      optimizer: of the energy's training steps.
      most: the largest swap.
    """
    rules = annealing.Rules(
        accept=where.finder.accept, target=0.25 if where.finder.adapted else None
    )
    moves = _moves(where, most)

    def energy(case: Case, sight: Sight, on: Split) -> Energy:
        steps = jax.tree.map(lambda array: array[: phase.train_steps], sight.batches)
        weights = case.params, case.stats
        last = *on, losses.cross_entropy, jax.random.key(0)
        return energies.trainability(recipe.model, recipe.loss, optimizer, *weights, steps, *last)

    def kernel(case: Case, sight: Sight) -> annealing.Kernel:
        lowered = energy(case, sight, sight.held_out)
        return annealing.build(moves, lambda point: mask_of(where, case, point), lowered, rules)

    def begin(case: Case, sight: Sight) -> Chain:
        mine = kernel(case, sight)
        init_key, burn_key, _ = jax.random.split(case.key, 3)
        state = mine.init(init_key, case.start)
        size = case.ticks.size[0]
        return chains.begin(annealing.burn_in(mine, burn_key, state, size, BURN_IN, 0.2))

    def chunk(case: Case, chain: Chain, start: Array, sight: Sight) -> tuple[Chain, Info]:
        seen = Split(recipe.prepare(sight.validation.images), sight.validation.labels)
        validation = energy(case, sight, seen)
        now = jax.tree.map(
            lambda t: jax.lax.dynamic_slice_in_dim(t, start, phase.chunk), case.ticks
        )
        return chains.chunk(
            kernel(case, sight),
            energy(case, sight, sight.held_out),
            lambda point: mask_of(where, case, point),
            lambda mask: validation.evaluate(case.key, mask),
            jax.random.split(case.key, 3)[2],
            chain,
            now,
        )

    return Search(begin, chunk)


def _moves(where: Ground, most: int) -> Moves:
    if where.finder.walks == "bits":
        return swaps.moves(where.bits, most)
    return fields.moves(where.fields)


def largest_swap(where: Ground, points: PyTree) -> int:
    """The static bound of swap sizes for stacked points; 0 for fields."""
    return swaps.most(where.bits, np.asarray(points)) if where.finder.walks == "bits" else 0


def survivors(scores: np.ndarray, groups: np.ndarray, many: int) -> np.ndarray:
    """int`[groups · many]`: the chains of the lowest scores in each group, best first.

    Args:
      scores: `[chains]`, such as held-out losses.
      groups: int`[chains]`: which group a chain is of.
      many: how many of each group go on.
    """
    chosen = []
    for group in dict.fromkeys(groups.tolist()):
        mine = np.flatnonzero(groups == group)
        chosen.append(mine[np.argsort(scores[mine], kind="stable")][:many])
    return np.concatenate(chosen)
