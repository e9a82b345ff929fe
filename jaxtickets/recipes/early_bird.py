"""Early-bird tickets: the mask of the largest settles long before the weights do.

You et al., "Drawing early-bird tickets: towards more efficient training of deep networks", 2020:
at each epoch's end of a dense training, the mask that would be cut now is compared with those of
the epochs before; once it no longer changes, the ticket is drawn and it alone is trained on. The
paper's bits are channels, ranked over all layers by the scales of batch norm; here they are those
of any space and criterion.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtickets import masks, training
from jaxtickets.compress.graph import Graph
from jaxtickets.search.space import Space
from jaxtickets.training import Metrics, Recipe, Splits, Watched
from jaxtickets.types import Array, Key, Mask, Params, PyTree, Stats, TrainState, UnitMask

WINDOW = 5
"""Masks that must agree: the paper's queue."""


class Queue(NamedTuple):
    """The last masks of a training, and when its ticket was drawn.

    Attributes:
      masks: uint8`[length, bytes]`, eight bits a byte, the newest first; zero until then.
      seen: int32, how many masks have come.
      drawn: int32, the number of the mask that was drawn, from 1; 0 until there is one.
    """

    masks: Array
    seen: Array
    drawn: Array


def empty(size: int, length: int = WINDOW) -> Queue:
    """A queue for masks of `size` bits that keeps the last `length` of them."""
    packed = jnp.zeros((length, -(-size // 8)), jnp.uint8)
    return Queue(packed, jnp.int32(0), jnp.int32(0))


def push(
    queue: Queue, bits: Array, tolerance: float, window: int = WINDOW
) -> tuple[Queue, jax.Array]:
    """The queue with one more mask, and how far that one is from those before it.

    With m_t the mask of epoch t and d the normalised Hamming distance, `Σ_i [a_i ≠ b_i] / n`, the
    ticket is drawn at the first epoch t with

        max_{1 ≤ k < window} d(m_t, m_{t−k}) ≤ tolerance,    t ≥ window:

    the newest mask is compared with the others in the queue, not these with each other (You et
    al., 2020, section 4, with a queue of 5 and a tolerance of 0.1). It is drawn once.

    Args:
      queue: of at least `window` masks; static in its length.
      bits: bool`[n]`, the new mask.
      tolerance: the largest distance of masks that agree.
      window: how many agree, the new one among them; static.

    Returns:
      The queue, and float32`[length - 1]`: the distances to the mask before, the one before that,
      and so on; nan where there was none.

    Raises:
      ValueError: the queue is shorter than `window`.
    """
    length, n = queue.masks.shape[0], bits.shape[0]
    if not 2 <= window <= length:
        raise ValueError(f"{window} masks that agree: must be from 2 to the queue's {length}")
    packed = jnp.packbits(bits)
    differ = lax.population_count(queue.masks[: length - 1] ^ packed[None])
    distances = jnp.sum(differ, axis=1, dtype=jnp.int32) / jnp.float32(n)
    seen = queue.seen + 1
    known = jnp.arange(1, length, dtype=jnp.int32) < seen
    agree = (seen >= window) & jnp.all(distances[: window - 1] <= jnp.float32(tolerance))
    drawn = jnp.where((queue.drawn == 0) & agree, seen, queue.drawn)
    pushed = jnp.concatenate([packed[None], queue.masks[:-1]])
    return Queue(pushed, seen, drawn), jnp.where(known, distances, jnp.nan)


def mask_at(queue: Queue, number: Array, size: int) -> jax.Array:
    """bool`[size]`: mask `number` of those that came, counted from 1, if it is still there."""
    return jnp.unpackbits(queue.masks[queue.seen - number], count=size).astype(bool)


# --- in a training -------------------------------------------------------------------------------


class DrawState(NamedTuple):
    """The method state of a training that draws tickets of several densities, stacked over these.

    Attributes:
      queue: of each density.
      params, stats: of the epoch that was drawn; those of the beginning until then.
    """

    queue: Queue
    params: Params
    stats: Stats


Draw = Callable[[TrainState], jax.Array]
"""`draw(state) -> bool[densities, n]`: the masks that would be cut now."""


def begin(
    params: Params, stats: Stats, size: int, densities: int, length: int = WINDOW
) -> DrawState:
    """Nothing is drawn yet; `size` and `length` as in `empty`."""

    def stacked(leaf: Array) -> jax.Array:
        return jnp.broadcast_to(leaf, (densities, *jnp.shape(leaf)))

    return DrawState(*jax.tree.map(stacked, (empty(size, length), params, stats)))


def observe(
    state: TrainState, draw: Draw, tolerance: float, window: int = WINDOW
) -> tuple[TrainState, Metrics]:
    """The state after a look at its masks; its method state is a `DrawState`.

    Returns:
      The state, and `{"distances"[densities, length - 1], "drawn"[densities]}`, see `push`.
    """
    bird: DrawState = state.method_state
    pushed = jax.vmap(lambda queue, bits: push(queue, bits, tolerance, window))
    queue, distances = pushed(bird.queue, draw(state))
    now = (queue.drawn > 0) & (bird.queue.drawn == 0)

    def kept(old: Array, new: Array) -> jax.Array:
        return jnp.where(now.reshape(-1, *[1] * jnp.ndim(new)), new[None], old)

    weights = jax.tree.map(kept, (bird.params, bird.stats), (state.params, state.stats))
    seen = {"distances": distances, "drawn": queue.drawn}
    return state._replace(method_state=DrawState(queue, *weights)), seen


def epoch(
    recipe: Recipe,
    key: Key,
    hyper: PyTree,
    watched: Watched,
    data: Splits,
    steps: int,
    draw: Draw,
    tolerance: float,
    window: int = WINDOW,
    keep_at: tuple[int, ...] = (),
) -> tuple[Watched, Metrics]:
    """An epoch of `steps` steps, and at its end a look at the masks.

    Args:
      recipe, key, hyper, watched, data, keep_at: see `training.piece`; the method state is a
        `DrawState`.
      steps: static, a multiple of `recipe.every`.
      draw: makes the masks.
      tolerance, window: see `push`.

    Returns:
      The training, and the metrics of `training.piece` and of `observe` together.
    """
    looks = steps // recipe.every
    watched, metrics = training.piece(recipe, key, hyper, watched, data, looks, keep_at)
    state, seen = observe(watched.state, draw, tolerance, window)
    return watched._replace(state=state), {**metrics, **seen}


# --- units ---------------------------------------------------------------------------------------


def unit_space(params: Params, graph: Graph) -> Space:
    """One bit a unit of a traced net; units that groups share, as in residual nets, are one bit.

    A segment is a group, of the units that no group before it has; a shared unit's score is the
    mean of its groups', as in `compress.filter_cuts`. `pool` takes a criterion's scores of units.
    """
    at, first, owner = _places(graph)
    shared = np.bincount(at)
    groups, sizes = np.unique(owner, return_counts=True)
    names = tuple(graph.units)

    def pool(scores: UnitMask) -> jax.Array:
        flat = jnp.concatenate([scores[name] for name in names])
        return jnp.zeros(len(first), jnp.float32).at[at].add(flat) / jnp.asarray(shared, "float32")

    def bits(mask: Mask) -> jax.Array:
        kernels = masks.kernels(mask, [g.producers[0] for g in graph.wiring])
        columns = [jnp.any(k, axis=tuple(range(k.ndim - 1))) for k in kernels]
        return jnp.concatenate(columns)[first]

    return Space(
        names=tuple(names[group] for group in groups),
        shapes=tuple((int(size),) for size in sizes),
        scope="global",
        mask=lambda bits: masks.expand(units_of(graph, bits), graph.wiring, params),
        bits=bits,
        pool=pool,
    )


def units_of(graph: Graph, bits: Array) -> dict[str, Array]:
    """`{group: bool[units]}` of the bits of `unit_space`."""
    at, _, _ = _places(graph)
    ends = np.cumsum([len(places) for places in graph.units.values()])
    return dict(zip(graph.units, jnp.split(bits[at], ends[:-1]), strict=True))


def _places(graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all groups' places, one after another: the bit of each; of the bits: place and group."""
    units = np.concatenate(list(graph.units.values()))
    group = np.repeat(np.arange(len(graph.units)), [len(p) for p in graph.units.values()])
    _, first, number = np.unique(units, return_index=True, return_inverse=True)
    order = np.argsort(first)
    at = np.argsort(order)[number]
    return at, first[order], group[first[order]]
