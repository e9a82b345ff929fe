"""The masks that an early-bird training compares: of the highest scores, or found by annealing."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxtickets import losses, schedules
from jaxtickets.criteria import Evidence
from jaxtickets.search import annealing, energies, swaps
from jaxtickets.search.space import Space, choose
from jaxtickets.types import Array, Key

Masks = Callable[[Key, Array, Evidence], jax.Array]
"""`masks(key, step, evidence) -> bool[densities, n]`: the masks at a training step."""

HOTTEST, COLDEST = 1e-2, 1e-4
"""The first and the last temperature of annealing, in nats."""
LARGEST = 0.05
"""The largest swap, as a share of the kept weights; swaps shrink to single bits."""


def ranked(
    space: Space,
    score: Callable[[Key, Evidence], Array],
    keep: Sequence[int],
    floor: int = 0,
    own: bool = False,
) -> Masks:
    """Masks of the highest scores, all segments ranked together.

    Args:
      space: the space of the bits.
      score: `score(key, evidence) -> float[n]`; its key differs from step to step.
      keep: the count of each density.
      floor: the fewest ones in each segment.
      own: whether each density has its own scores, which random scores need; otherwise the masks
        are nested.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 3))}, ("w",))
    >>> draw = ranked(space, lambda key, evidence: jnp.array([3.0, 1.0, 2.0]), keep=[1, 2])
    >>> draw(jax.random.key(0), 0, None).tolist()
    [[True, False, False], [True, False, True]]
    """

    def masks(key: Key, step: Array, seen: Evidence) -> jax.Array:
        now = jax.random.fold_in(key, step)
        if own:
            scores = [score(jax.random.fold_in(now, kept), seen) for kept in keep]
            each = zip(scores, keep, strict=True)
            return jnp.stack([choose(space, s, jnp.int32(kept), floor) for s, kept in each])
        return choose_all(space, score(now, seen), jnp.asarray(keep, jnp.int32), floor)

    return masks


def annealed(space: Space, steps: int, keep: Sequence[int], floor: int = 0) -> Masks:
    """Masks found by annealing the masked net's cross-entropy on the evidence's batches.

    By Metropolis' rule. At every training step, the search of a density starts from the same random
    mask and uses the same random numbers, so that masks differ only because the weights do: two
    searches with independent random numbers give masks no closer than chance. Temperatures and swap
    sizes decrease geometrically.

    Args:
      space: the space of the bits.
      steps: the number of proposed swaps.
      keep, floor: as in `ranked`.

    >>> from jaxtickets.nets import functional_plain
    >>> from jaxtickets.search.space import weights
    >>> from jaxtickets.types import Split
    >>> params = {"w": jnp.array([[0.0, 9.0]])}
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> batches = Split(jnp.ones((1, 1, 1)), jnp.array([[1]]))
    >>> evidence = Evidence(params, params, {}, None, batches, None, net, lambda images: images)
    >>> draw = annealed(weights(params, ("w",)), steps=2, keep=[1])
    >>> draw(jax.random.key(0), 0, evidence).tolist()  # the weight of class 1, that of the image
    [[False, True]]
    """
    least = tuple(min(floor, size) for size in space.sizes)

    def masks(key: Key, step: Array, seen: Evidence) -> jax.Array:
        del step
        images = seen.batches.images
        images = seen.prepare(images.reshape(-1, *images.shape[2:]))
        labels = seen.batches.labels.reshape(-1)
        energy = energies.fixed(
            seen.model, seen.params, seen.stats, images, labels, losses.cross_entropy
        )

        def one(kept: int) -> jax.Array:
            draw_key, init_key, walk_key = jax.random.split(jax.random.fold_in(key, kept), 3)
            chance = jax.random.uniform(draw_key, (space.size,))
            most = max(1, round(LARGEST * kept))
            ticks = annealing.step_plans(
                steps,
                schedules.geometric(HOTTEST, steps, COLDEST),
                schedules.geometric(most, steps, 1),
            )
            moves = swaps.moves(space, most, least if floor else None)
            kernel = annealing.build(moves, space.mask, energy, annealing.Rules())
            state = kernel.init(init_key, choose(space, chance, jnp.int32(kept), floor))
            return annealing.run(kernel, walk_key, state, ticks)[0].best

        return jnp.stack([one(kept) for kept in keep])

    return masks


def choose_all(space: Space, scores: Array, keep: Array, floor: int = 0) -> jax.Array:
    """bool`[densities, n]`: for each of `keep[densities]`, the highest of `scores[n]`.

    Args:
      space, scores, floor: see `space.choose`; all segments are ranked together.
      keep: int32`[densities]`.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 3))}, ("w",))
    >>> choose_all(space, jnp.array([3.0, 1.0, 2.0]), jnp.array([1, 2])).tolist()
    [[True, False, False], [True, False, True]]
    """
    return jax.vmap(lambda kept: choose(space, scores, kept, floor))(keep)
