"""GraNet: gradual pruning with regeneration, in one training that is sparse from its start.

After every round of training steps some of the kept weights w go, the smallest |w|, and some of
the others come, at zero: those with the largest |dL/dw|. More go than come: of n weights

    ones(t) = end + (begin - end) (1 - t / pruned_by)^3      are kept until t = pruned_by,
    regrown · (1 + cos(π t / settled_by)) / 2 · ones(t)      come anew until t = settled_by,

t being the share of the training that is done. Liu et al., "Sparse training via boosting pruning
plasticity with neuroregeneration", 2021, section 4; the cubic fall is Zhu and Gupta's ("To prune,
or not to prune", 2017), the cosine that of RigL (Evci et al., 2020).

Deviations, since what is wanted here is a mask to rewind, and not the net that it ends with:
regeneration ranks all layers together, as pruning does, where the paper regrows in each layer as
many as went there; it begins with SNIP's mask and not a random one with ERK's counts (the caller's
choice), and its ratio at 0.3 and not 0.5; the cosine ends before the training does, so that the
mask has settled; the gradient is that of several batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtickets import masks, optimizer_states, runs, schedules, training
from jaxtickets.data import batches as data_batches
from jaxtickets.training import Metrics, Recipe
from jaxtickets.types import Array, Key, Params, Prunable, PyTree, Split, TrainState

REGROWN, PRUNED_BY, SETTLED_BY = 0.3, 0.6, 0.75


class Round(NamedTuple):
    """What is kept after a round of training steps; of all rounds, int32`[rounds]`.

    Attributes:
      ones: kept weights.
      grown: those of them that come anew.
    """

    ones: Array
    grown: Array


def plan(
    rounds: int,
    begin: int,
    end: int,
    least: int = 0,
    regrown: float = REGROWN,
    pruned_by: float = PRUNED_BY,
    settled_by: float = SETTLED_BY,
) -> Round:
    """What is kept after each of so many rounds, see above; the last keeps `end`, and none is new.

    Args:
      rounds: how many; 2 or more.
      begin, end: kept weights before the first round, and at the end; `end` is not above `begin`.
      least: of the kept weights, how many must not be new: all floors together.
      regrown: the share that comes anew at first, below 1.
      pruned_by, settled_by: shares of the training, above 0, at most 1.

    Raises:
      ValueError: something is out of range.
    """
    if rounds < 2:
        raise ValueError(f"{rounds} rounds: must be 2 at least")
    if not max(least, 1) <= end <= begin:
        raise ValueError(f"from {begin} to {end} weights, {least} at least: out of order")
    if not 0 <= regrown < 1:
        raise ValueError(f"regrown={regrown}: must be from 0 to below 1")
    for name, share in (("pruned_by", pruned_by), ("settled_by", settled_by)):
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share}: must be above 0 and at most 1")
    t = np.arange(1, rounds + 1) / rounds
    ones = np.round(end + (begin - end) * schedules.gradual(t, pruned_by)).astype(np.int32)
    new = regrown * (1 + np.cos(np.pi * np.minimum(t / settled_by, 1))) / 2
    grown = np.minimum(np.floor(ones * new), ones - least).astype(np.int32)
    return Round(ones, grown)


def update(
    state: TrainState,
    slope: Params,
    to: Round,
    prunable: Prunable,
    optimizer: optax.GradientTransformation,
    floor: int = 0,
) -> TrainState:
    """The state with another mask: the smallest |w| gone, the largest |dL/dw| new.

    New weights begin at zero, and their moments as the optimiser's `init` has them. What has just
    gone may come back.

    Args:
      state: its parameters are masked.
      slope: the loss' gradient in all weights, dense.
      to: what is to be kept, may be traced; `ones - grown` at least the floors' sum and at most
        what is kept now.
      prunable: the leaves that are ranked, together.
      optimizer: that the state is of.
      floor: the least that each leaf keeps.

    Raises:
      ValueError: the optimiser keeps no number a weight, see `optimizer_states.anew`.
    """
    worth = masks.apply(state.mask, jax.tree.map(jnp.abs, state.params), _below(state.params))
    stay = masks.select(worth, prunable, to.ones - to.grown, floor)
    want = jax.tree.map(lambda kept, g: jnp.where(kept, -jnp.inf, jnp.abs(g)), stay, slope)
    come = masks.select(want, prunable, to.grown)
    leaves = zip(masks.pick(stay, prunable), masks.pick(come, prunable), strict=True)
    mask = masks.put(stay, prunable, [a | b for a, b in leaves])
    old = jax.tree.map(jnp.logical_and, state.mask, mask)
    params = masks.apply(old, state.params)
    opt_state = optimizer_states.anew(optimizer, state.opt_state, params, old)
    return state._replace(params=params, opt_state=opt_state, mask=mask)


def _below(params: Params) -> Params:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, -jnp.inf), params)


def piece(
    recipe: Recipe,
    key: Key,
    hyper: PyTree,
    state: TrainState,
    train: Split,
    to: Round,
    every: int,
    images: int,
    prunable: Prunable,
    floor: int = 0,
) -> tuple[TrainState, Metrics]:
    """A round of `every` training steps, then `update`, for each of `to`.

    Args:
      recipe: how to train.
      key: the run's key, the same for all pieces of the run.
      hyper: what `recipe.optimizer` is called with.
      state: where to begin.
      train: the training images.
      to: int32`[rounds]` each.
      every: steps of a round.
      images: that the gradient is of, drawn anew each time; less where they don't make whole
        batches, see `gradient_batches`.
      prunable, floor: see `update`.

    Returns:
      The state, and `{"loss", "accuracy"}`, float`[rounds, every]`, of the batches trained on.
    """
    order_key, step_key, pick_key = jax.random.split(key, 3)
    n, rounds = train.labels.shape[0], len(to.ones)
    first = state.step, rounds * every, n, recipe.batch_size
    index = data_batches.stream(order_key, *first).reshape(rounds, every, recipe.batch_size)
    optimizer, fetch = recipe.optimizer(hyper), training.fetcher(recipe, train)

    def slope_of(state: TrainState) -> Params:
        """The gradient of random images, up to a factor, a batch at a time."""
        here, augment_key, loss_key = jax.random.split(jax.random.fold_in(pick_key, state.step), 3)
        many, size = gradient_batches(images, recipe.batch_size)
        index = jax.random.randint(here, (many * size,), 0, n).reshape(many, size)

        def add(total: Params, given: tuple[Key, Key, Array]) -> tuple[Params, None]:
            augment_key, loss_key, index = given
            some = runs.divide(fetch(augment_key, index))
            slope, _ = jax.grad(recipe.loss, has_aux=True)(
                state.params, state.stats, some, loss_key
            )
            return jax.tree.map(jnp.add, total, slope), None

        keys = jax.random.split(augment_key, many), jax.random.split(loss_key, many)
        zero = jax.tree.map(jnp.zeros_like, state.params)
        return jax.lax.scan(add, zero, (*keys, index))[0]

    def body(state: TrainState, given: tuple[Array, Round]) -> tuple[TrainState, Metrics]:
        index, to = given
        state, metrics = training.advance(recipe.loss, optimizer, step_key, state, index, fetch)
        return update(state, slope_of(state), to, prunable, optimizer, floor), metrics

    return jax.lax.scan(body, state, (index, to))


def gradient_batches(images: int, batch_size: int) -> tuple[int, int]:
    """`(batches, images of each)`: of the images at most, in batches of `batch_size` at most.

    Full batches, or the fewest that could hold all the images, of equal size: whichever leave out
    fewer images. A batch holds one image only where `images` or `batch_size` is 1, since a batch
    norm over one example has no gradient. Cutting the product again gives the same batches.
    """
    fewest = -(-images // batch_size)
    ways = (images // batch_size, batch_size), (fewest, images // fewest)
    return max(ways, key=lambda way: way[0] * way[1])
