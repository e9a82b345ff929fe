"""Random masks between uniformly random ones and SNIP's, on which energies are evaluated."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.harness.candidate_masks import Candidates
from experiments.harness.problem import Problem
from experiments.harness.seeds import evidence, mask_key
from experiments.harness.trained_masks import Entry
from experiments.harness.training_runs import start_of
from jaxtickets import allocation, masks
from jaxtickets.criteria import find
from jaxtickets.keys import stream
from jaxtickets.search import fields
from jaxtickets.types import Array, Key, Mask

FEATURES = (fields.CHANCE, "large_init")
"""The features that are mixed within a field."""
MOVES = 10
"""The number of random moves that change a field."""


def of_fields(count: int, problem: Problem, made: Candidates) -> list[Entry]:
    """Masks of random fields: SNIP's potentials, randomly scaled and changed by random moves.

    Args:
      count: the number of masks for each seed and density.
      problem: the net and its data.
      made: the run, with its seeds, densities and data.
    """
    image, params = made.session.data.train.images.shape[1:], made.session.seeds[0].params
    space = fields.space(params, problem.prunable, FEATURES, ("input",), image)
    moves = fields.moves(space)
    floor = made.plan.settings.floor

    @jax.jit
    def draw(key: Key, features: Any, pooled: fields.Field, keep: Array) -> Mask:
        share_key, mix_key, walk_key = jax.random.split(key, 3)
        share = jax.random.uniform(share_key, maxval=1.5)
        mix = jnp.array([1.0, 2 * jax.random.uniform(mix_key)])
        begin = jax.tree.map(lambda potential: share * potential, pooled)._replace(mix=mix)

        def step(field: fields.Field, key: Key) -> tuple[fields.Field, None]:
            return moves.propose(key, jnp.float32(0.7), field).walk, None

        field, _ = jax.lax.scan(step, begin, jax.random.split(walk_key, MOVES))
        return fields.mask(space, features, keep, floor, field)

    entries = []
    sizes = masks.shapes(params, problem.prunable)
    for one in made.session.seeds:
        about = evidence(problem, one, None, made.session.data)
        scores = find("snip").score(mask_key(one, "snip", 1.0), about)
        pooled = fields.pooled(space, scores, (1.0, 1.0))
        for density in made.plan.keep:
            keep = allocation.total(sizes, density)
            features = fields.features(stream(one.number, "features", density), space, about)
            for i in range(count):
                mask = draw(stream(one.number, "field", density, i), features, pooled, keep)
                name = {"method": "field", "density": density, "seed": one.number, "number": i}
                entries.append(Entry(name, start_of(problem, one, mask)))
    return entries
