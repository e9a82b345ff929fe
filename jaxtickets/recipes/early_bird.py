"""Early-bird tickets: the mask of the largest weights settles long before the weights do.

You et al., "Drawing early-bird tickets: towards more efficient training of deep networks", 2020. At
the end of each epoch of a dense training, the mask of the current weights is compared with those of
the previous epochs. Once it no longer changes, the ticket is drawn, and only the ticket is trained
further. The bits of the paper are channels, ranked over all layers by their batch-norm scales; here
they are those of any space and criterion.
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
"""The number of masks that must agree: the length of the paper's queue."""


class Queue(NamedTuple):
    """The last masks of a training, and the number of the one that was drawn.

    Attributes:
      masks: uint8`[length, bytes]`, eight bits in a byte, the newest first; zero before they are
        filled.
      seen: int32 scalar, the number of masks so far.
      drawn: int32 scalar, the number of the drawn mask, from 1; 0 until one is drawn.
    """

    masks: Array
    seen: Array
    drawn: Array


def empty(size: int, length: int = WINDOW) -> Queue:
    """An empty queue that holds the last `length` masks of `size` bits.

    >>> queue = empty(size=20)
    >>> queue.masks.shape, int(queue.seen), int(queue.drawn)
    ((5, 3), 0, 0)
    """
    packed = jnp.zeros((length, -(-size // 8)), jnp.uint8)
    return Queue(packed, jnp.int32(0), jnp.int32(0))


def push(
    queue: Queue, bits: Array, tolerance: float, window: int = WINDOW
) -> tuple[Queue, jax.Array]:
    """Adds a mask to the queue and compares it with the previous ones.

    With m_t the mask of epoch t and d the normalised Hamming distance, `Σ_i [a_i ≠ b_i] / n`, the
    ticket is drawn at the first epoch t with

        max_{1 ≤ k < window} d(m_t, m_{t−k}) ≤ tolerance,    t ≥ window:

    the newest mask is compared with each of the others, which are not compared with each other (You
    et al., 2020, section 4, with a queue of 5 and a tolerance of 0.1). Only one ticket is drawn.

    Args:
      queue: of at least `window` masks; its length is static.
      bits: bool`[n]`, the new mask.
      tolerance: the largest distance at which masks agree.
      window: the number of masks that must agree, including the new one; static.

    Returns:
      The queue, and float32`[length - 1]`: the distances to the previous masks, the latest first;
      NaN where there is none.

    Raises:
      ValueError: the queue is shorter than `window`.

    >>> queue, bits = empty(size=4, length=2), jnp.array([True, False, True, True])
    >>> queue, _ = push(queue, bits, tolerance=0.1, window=2)
    >>> queue, distances = push(queue, bits.at[0].set(False), tolerance=0.25, window=2)
    >>> distances.tolist(), int(queue.drawn)  # one bit of four differs
    ([0.25], 2)
    """
    length, n = queue.masks.shape[0], bits.shape[0]
    if not 2 <= window <= length:
        raise ValueError(f"window={window}: must be from 2 to the queue's length {length}")
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
    """bool`[size]`: the mask of that number, counted from 1; it must still be in the queue.

    >>> bits = jnp.array([True, False, True, True])
    >>> queue, _ = push(empty(size=4, length=2), bits, tolerance=0.1, window=2)
    >>> mask_at(queue, number=1, size=4).tolist()
    [True, False, True, True]
    """
    return jnp.unpackbits(queue.masks[queue.seen - number], count=size).astype(bool)


# --- in a training -------------------------------------------------------------------------------


class DrawState(NamedTuple):
    """The method state of a training that draws tickets of several densities, stacked over them.

    Attributes:
      queue: the queue of each density.
      params, stats: `[densities, ...]`, the parameters and statistics at the epoch that was drawn;
        the initial ones until then.
    """

    queue: Queue
    params: Params
    stats: Stats


Draw = Callable[[TrainState], jax.Array]
"""`draw(state) -> bool[densities, n]`: the masks of the current weights."""


def begin(
    params: Params, stats: Stats, size: int, densities: int, length: int = WINDOW
) -> DrawState:
    """The state before any mask; `size` and `length` as in `empty`.

    >>> state = begin({"w": jnp.array([1.0, 2.0])}, {}, size=2, densities=3)
    >>> state.params["w"].tolist(), state.queue.drawn.tolist()
    ([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], [0, 0, 0])
    """

    def stacked(leaf: Array) -> jax.Array:
        return jnp.broadcast_to(leaf, (densities, *jnp.shape(leaf)))

    return DrawState(*jax.tree.map(stacked, (empty(size, length), params, stats)))


def observe(
    state: TrainState, draw: Draw, tolerance: float, window: int = WINDOW
) -> tuple[TrainState, Metrics]:
    """Pushes the masks of the current state onto the queues in its method state, a `DrawState`.

    Returns:
      The state, and `{"distances"[densities, length - 1], "drawn"[densities]}`, see `push`.

    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> state = TrainState(params, {}, (), begin(params, {}, size=2, densities=1, length=2), 0)
    >>> def larger(state):
    ...     return state.params["w"][None] > 1.5
    >>> state, _ = observe(state, larger, tolerance=0.1, window=2)
    >>> state, seen = observe(state, larger, tolerance=0.1, window=2)
    >>> seen["distances"].tolist(), seen["drawn"].tolist()
    ([[0.0]], [2])
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
    """Trains for an epoch of `steps` steps, then observes the masks.

    Args:
      recipe, key, hyper, watched, data, keep_at: see `training.train_chunk`; the method state is a
        `DrawState`.
      steps: static, a multiple of `recipe.every`.
      draw: computes the masks.
      tolerance, window: see `push`.

    Returns:
      The training, and the metrics of `training.train_chunk` and `observe` together.

    >>> from jaxtickets import losses, masks
    >>> from jaxtickets.dynamic.static import masked
    >>> from jaxtickets.nets import functional_plain
    >>> from jaxtickets.types import Split
    >>> params, sgd = {"w": jnp.zeros((2, 2))}, optax.sgd(1.0)
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> same = lambda images: images
    >>> loss = losses.classification(net, same)
    >>> recipe = Recipe(net, loss, lambda hyper: sgd, same, None, batch_size=2, every=1)
    >>> bird = begin(params, {}, size=4, densities=1, length=2)
    >>> state = training.init(params, {}, masked(sgd, masks.ones(params)), method_state=bird)
    >>> split = Split(jnp.eye(2), jnp.array([0, 1]))
    >>> def positive(state):
    ...     return state.params["w"].reshape(1, 4) > 0
    >>> watched, seen = epoch(
    ...     recipe,
    ...     jax.random.key(0),
    ...     hyper=(),
    ...     watched=training.watch(state),
    ...     data=Splits(split, split),
    ...     steps=1,
    ...     draw=positive,
    ...     tolerance=0.1,
    ...     window=2,
    ... )
    >>> queue = jax.tree.map(lambda leaf: leaf[0], watched.state.method_state.queue)
    >>> mask_at(queue, 1, size=4).tolist(), seen["drawn"].tolist()
    ([True, False, False, True], [0])
    """
    evaluations = steps // recipe.every
    watched, metrics = training.train_chunk(recipe, key, hyper, watched, data, evaluations, keep_at)
    state, seen = observe(watched.state, draw, tolerance, window)
    return watched._replace(state=state), {**metrics, **seen}


# --- units ---------------------------------------------------------------------------------------


def unit_space(params: Params, graph: Graph) -> Space:
    """The space with one bit for each unit of a traced net.

    A unit that several groups share, as in residual nets, is one bit, in the segment of the first
    of these groups; its score is the mean over the groups, as in `compress.unit_selection`. `pool`
    takes a criterion's scores of units.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress.graph import trace
    >>> net, shape = nets.make("lenet300_100", widths=(3, 2), use_bias=False), (2, 1, 1)
    >>> params, _ = jax.eval_shape(nets.functional(net, shape).init, jax.random.key(0))
    >>> space = unit_space(params, trace(net, shape))
    >>> space.names, space.shapes
    (('fc1', 'fc2'), ((3,), (2,)))
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
    """`{group: bool[units]}` from the bits of `unit_space`.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress.graph import trace
    >>> graph = trace(nets.make("lenet300_100", widths=(3, 2)), (2, 1, 1))
    >>> bits = jnp.array([True, False, True, False, True])
    >>> {group: units.tolist() for group, units in units_of(graph, bits).items()}
    {'fc1': [True, False, True], 'fc2': [False, True]}
    """
    at, _, _ = _places(graph)
    ends = np.cumsum([len(places) for places in graph.units.values()])
    return dict(zip(graph.units, jnp.split(bits[at], ends[:-1]), strict=True))


def _places(graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bit of each place of all groups, concatenated; each bit's first place and group."""
    units = np.concatenate(list(graph.units.values()))
    group = np.repeat(np.arange(len(graph.units)), [len(p) for p in graph.units.values()])
    _, first, number = np.unique(units, return_index=True, return_inverse=True)
    order = np.argsort(first)
    at = np.argsort(order)[number]
    return at, first[order], group[first[order]]
