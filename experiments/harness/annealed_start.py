"""The start of a search over masks: the first points of the chains, and the plan of their steps."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.annealed_settings import AnnealingSettings, mix_of
from experiments.harness.named_parts import make_part, takes
from jaxtickets import allocation, schedules
from jaxtickets.allocation import ALLOCATIONS
from jaxtickets.compress import budget
from jaxtickets.criteria import Evidence, at_initialisation, find
from jaxtickets.recipes.search_domain import POTENTIALS, SearchDomain
from jaxtickets.recipes.search_proposals import PROPOSALS
from jaxtickets.recipes.search_schedules import SIZES, TEMPERATURES
from jaxtickets.search import annealing, fields, patterns, swaps
from jaxtickets.search import space as spaces
from jaxtickets.search.fields import Field
from jaxtickets.search.space import Space
from jaxtickets.types import (
    Array,
    Key,
    PyTree,
    Schedule,
    Scores,
)

_choose = jax.jit(spaces.choose, static_argnums=(0, 3))
ARRAYS = ("init_params", "params", "stats", "mask", "batches")
"""The fields of `Evidence` that hold arrays; the others are functions and names."""


@partial(jax.jit, static_argnums=(0, 1, 3))
def _scores(
    criterion: str,
    space: Space,
    arrays: dict[str, PyTree],
    functions: Evidence,
    key: Key,
) -> Array:
    """The criterion's scores over the space, one program for the chains and seeds of a net."""
    return space.pool(find(criterion).score(key, functions._replace(**arrays)))


def first_bits(
    settings: AnnealingSettings,
    key: Key,
    space: Space,
    density: float,
    evidence: Evidence | None = None,
) -> Array:
    """bool`[n]`: first bits of a density, distributed over the segments by `settings.allocation`.

    The bits are random, or, with `settings.start` and `evidence`, those with the highest scores of
    the criterion at the initial weights. The key is consumed.

    Raises:
      ValueError: the density leaves a segment empty, or with fewer ones than the floor.
    """
    _check(density)
    if space.scope == spaces.PATTERN:
        each = round(density * space.group)
        if abs(density - each / space.group) > 1e-3 or not 0 < each < space.group:
            raise ValueError(
                f"density {density}: N of {space.group} inputs stay, so give N / {space.group}, "
                f"such as {1 / space.group:.3g} or {(space.group - 1) / space.group:.3g}"
            )
        keep = int(spaces.pattern_totals(space)[each])
    else:
        keep = _keep(settings, space, density)
    scores = jax.random.uniform(key, (space.size,))
    if settings.start and evidence is not None:
        untrained = evidence._replace(params=evidence.init_params)
        scores = _scores(
            settings.start,
            space,
            {name: getattr(untrained, name) for name in ARRAYS},
            untrained._replace(**dict.fromkeys(ARRAYS)),
            key,
        )
    bits = _choose(space, scores, keep, settings.floor)
    counts = dict(zip(space.names, spaces.counts(space, bits).tolist(), strict=True))
    allocation.check_counts(counts)
    if space.scope == spaces.PATTERN:
        for name, size in zip(space.names, space.sizes, strict=True):
            if counts[name] < min(settings.floor, size):
                raise ValueError(
                    f"floor={settings.floor}: the pattern leaves {counts[name]} in {name}"
                )
    return bits


def field_keep(settings: AnnealingSettings, where: SearchDomain, density: float) -> Array:
    """The size of the masks of a field: int32, a count of weights or units, or a float32 share.

    The share is of the multiply-adds, if the domain has costs.

    Raises:
      ValueError: the density is outside (0, 1), or the floors need more than it allows.
    """
    _check(density)
    if where.costs is None:
        keep = _keep(settings, where.space, density)
        return jnp.int32(keep if isinstance(keep, int) else sum(keep.values()))
    least = budget.least(where.costs, settings.floor)
    if density < least + budget.SLACK:
        raise ValueError(
            f"a budget of {density:g} of the multiply-adds: with floor={settings.floor} the "
            f"smallest net takes {least:.3g}"
        )
    return jnp.float32(density)


def _check(density: float) -> None:
    if not 0 < density < 1:
        raise ValueError(f"density {density} is outside (0, 1): there is nothing to search")


def _keep(settings: AnnealingSettings, space: Space, density: float) -> Any:
    """The number of ones: in total, or of each segment, as the allocation says."""
    shapes = dict(zip(space.names, space.shapes, strict=True))
    return ALLOCATIONS[settings.allocation](shapes, density, settings.floor)


def first_field(
    settings: AnnealingSettings, key: Key, where: SearchDomain, evidence: Evidence
) -> tuple[tuple[Scores, ...], Field]:
    """The features of a chain's fields, and its first field; the key is consumed."""
    assert where.fields is not None
    feature_key, score_key = jax.random.split(key)
    features = fields.features(feature_key, where.fields, evidence, where.pool)
    if not settings.pooled:
        return features, fields.flat(where.fields, mix_of(settings))
    scores = where.pool(at_initialisation(find(settings.pooled)).score(score_key, evidence))
    return features, fields.pooled(where.fields, scores, mix_of(settings))


def step_plans(settings: AnnealingSettings, ones: int, most: int) -> annealing.StepPlan:
    """The temperature and the size of each step of a chain.

    Populations are resampled once for the whole cooling of a chunk, so their temperature is
    constant within a chunk.

    Args:
      settings: the search.
      ones: the number of ones of the first mask; ignored for fields, whose sizes are in nats.
      most: the largest swap; ignored for fields.
    """
    steps, whole = settings.steps, settings.granularity not in POTENTIALS
    period = settings.reheat or steps
    once = schedules.growing_levels(
        period, settings.level_first, settings.level_growth, settings.level_most
    )
    levels = np.resize(once, steps)  # begun again when reheated
    start = settings.temperature or 1.0
    falls = TEMPERATURES[settings.temperatures]
    temperature = make_part(
        falls,
        {
            "start": start,
            "end": start * settings.temperature_ratio,
            "steps": period,
            "levels": once,
            "cooling": settings.cooling,
        },
    )
    temperature = schedules.reheat(temperature, period)
    if settings.interaction == "population":
        temperature = _held(temperature, settings.chunk)
    first, last = settings.size, settings.size_end
    if whole:
        first, last = min(swap_size(first, ones), most), min(swap_size(last, ones), most)
    size = make_part(
        SIZES[settings.sizes].make,
        {"first": first, "last": last, "steps": steps, "levels": levels, "most": most},
    )
    begins = (np.diff(levels, prepend=-1) != 0).astype(np.float32)
    level = schedules.table(begins) if "levels" in takes(falls) else None
    return annealing.step_plans(steps, temperature, size, level, whole)


def _held(temperature: Schedule, chunk: int) -> Schedule:
    """The schedule with the temperature of each chunk's first step for the whole chunk."""
    return lambda step: temperature(step // chunk * chunk)


def swap_size(asked: float, ones: int) -> int:
    """The swap size of a flag: 0 means `ones`, below 1 a share of them, else a number."""
    if not asked:
        return ones
    return max(1, round(asked * ones if asked < 1 else asked))


def largest_swap(settings: AnnealingSettings, space: Space, bits: Array) -> int:
    """The static bound of swap sizes, for the first bits of the chains, `bits[chains, n]`.

    Adaptive sizes are at most half of the ones that can be swapped: near all of them, a walk would
    alternate between a mask and its complement. Informed swaps are bounded by their
    candidates. A pattern has one swap in each group.
    """
    if space.scope == spaces.PATTERN:
        room = patterns.count(space)
    else:
        room = swaps.most(space, np.asarray(bits))
    if SIZES[settings.sizes].adapts:
        room = max(1, room // 2)
    if "candidates" in takes(PROPOSALS[settings.proposal].make):
        room = min(room, settings.candidates)
    return min(swap_size(settings.size, int(np.sum(bits, axis=-1).max())), room)
