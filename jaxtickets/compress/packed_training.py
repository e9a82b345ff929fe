"""Training of a sparse multilayer perceptron that skips its zeros.

Between two moves of the mask, kernels are packed as `segments`, so that training steps compute,
differentiate and update kept weights only. Tables of positions have fixed shapes and are arguments:
one compiled program serves all masks that keep as many weights, and computes the tables itself.

    net = packed_training.packed_net(model, layers, loss_of, mask)
    state, metrics = packed_training.advance(net, optax.adam(1e-3), key, state, batches)

This takes and returns what `training.advance` does with a static mask, to float tolerance. A move
may follow, of any sparse optimiser (`dynamic`), with a dense gradient computed for it alone. Where
the number of kept weights falls, as in gradual pruning, `packed_nets` has a net for each stage, and
`advance_in` takes the smallest with room for the mask. In a loop of one's own, the pieces are
`tables`, `pack`, `unpack` and `packed_model`: packed weights are parameters like others, for any
elementwise optimiser.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtickets import masks, optimizer_states, training
from jaxtickets.compress import segments
from jaxtickets.compress.segments import Segments
from jaxtickets.dynamic.base import SparseState
from jaxtickets.dynamic.static import masked
from jaxtickets.types import (
    Array,
    Key,
    Loss,
    Mask,
    Model,
    Params,
    Prunable,
    PyTree,
    Stats,
    TrainState,
)

PAYS_BELOW = 0.08
"""The density below which packing makes a layer's training steps faster on CPUs."""
ROOMS = (0.0125, 0.02, 0.03, 0.05, PAYS_BELOW)
"""Densities of the stages of `packed_nets`."""
SMALL = 1 / 8
"""A kernel below this share of the largest one's size stays dense in `packed_nets`."""

Tables = Mapping[str, Segments]
"""Path of a packed kernel -> its tables."""


class PackedNet(NamedTuple):
    """How a net is packed; static.

    Attributes:
      model: the net as functions of its dense parameters.
      layers: the layers in forward order.
      loss: `loss(model) -> Loss`, such as `lambda model: classification(model, prepare)`.
      capacity: path -> the largest number of weights that a packed kernel keeps. Kernels that
        aren't in it stay dense, and masked.
    """

    model: Model
    layers: tuple[str, ...]
    loss: Callable[[Model], Loss]
    capacity: Mapping[str, int]


def packed_net(
    model: Model,
    layers: Sequence[str],
    loss: Callable[[Model], Loss],
    mask: Mask,
    pays_below: float = PAYS_BELOW,
) -> PackedNet:
    """The net with each kernel packed whose density is below `pays_below`, on the host.

    A net for masks that keep as many weights of each kernel as `mask` does.

    Args:
      model: a multilayer perceptron: dense layers with ReLU between them.
      layers: its layers in forward order.
      loss: see `PackedNet`.
      mask: bool, like the parameters. Later masks must not keep more weights of a packed kernel.
      pays_below: a density.

    Raises:
      ValueError: the layers are not all of those in the mask, are not dense, or do not fit on each
        other.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> net = packed_net(None, ("out",), None, mask, pays_below=0.6)
    >>> dict(net.capacity)
    {'out/kernel': 2}
    """
    _check_layers(mask, layers)
    prunable: Prunable = tuple(sorted(f"{layer}/kernel" for layer in layers))
    counts = {path: int(count) for path, count in masks.counts(mask, prunable).items()}
    sizes = {
        path: leaf.size for path, leaf in zip(prunable, masks.pick(mask, prunable), strict=True)
    }
    packed = {path: counts[path] for path in prunable if counts[path] < pays_below * sizes[path]}
    return PackedNet(model, tuple(layers), loss, packed)


def packed_nets(
    model: Model,
    layers: Sequence[str],
    loss: Callable[[Model], Loss],
    mask: Mask,
    rooms: Sequence[float] = ROOMS,
) -> tuple[PackedNet, ...]:
    """Nets with room for ever more weights, for masks whose counts change; see `advance_in`.

    Args:
      model, layers, loss: see `packed_net`.
      mask: bool, like the parameters; only its shapes matter.
      rooms: densities, ascending. Each net has room for this share of all kernels but small ones,
        which stay dense; one net more keeps all dense.

    Raises:
      ValueError: as in `packed_net`.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> nets = packed_nets(None, ("out",), None, mask, rooms=(0.25, 0.5))
    >>> [dict(net.capacity) for net in nets]
    [{'out/kernel': 1}, {'out/kernel': 2}, {}]
    """
    _check_layers(mask, layers)
    paths: Prunable = tuple(sorted(f"{layer}/kernel" for layer in layers))
    sizes = {path: leaf.size for path, leaf in zip(paths, masks.pick(mask, paths), strict=True)}
    large = {path: n for path, n in sizes.items() if n >= SMALL * max(sizes.values())}
    capacities = [{path: int(room * n) for path, n in large.items()} for room in rooms]
    return tuple(PackedNet(model, tuple(layers), loss, room) for room in (*capacities, {}))


def _check_layers(mask: Mask, layers: Sequence[str]) -> None:
    if sorted(mask) != sorted(layers):
        raise ValueError(f"the layers are {', '.join(layers)}, the mask's {', '.join(mask)}")
    units = None
    for layer in layers:
        if not {"kernel"} <= set(mask[layer]) <= {"kernel", "bias"}:
            raise ValueError(f"{layer} has {', '.join(mask[layer])}: not a dense layer")
        shape = jnp.shape(mask[layer]["kernel"])
        if len(shape) != 2 or units not in (None, shape[0]):
            raise ValueError(f"{layer}/kernel has shape {shape} after {units} units")
        units = shape[1]


def tables(mask: Mask, capacity: Mapping[str, int]) -> dict[str, Segments]:
    """The tables of a mask's packed kernels; may be traced.

    Args:
      mask: bool, like the parameters.
      capacity: see `PackedNet`; static.

    Raises:
      ValueError: see `segments.segments`, which says what happens under tracing instead.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> tables(mask, {"out/kernel": 2})["out/kernel"].fan_in.tolist()
    [1, 1]
    """
    names = tuple(sorted(capacity))
    leaves = masks.pick(mask, names)
    return {
        path: segments.segments(leaf, capacity[path])
        for path, leaf in zip(names, leaves, strict=True)
    }


def pack(tables: Tables, tree: PyTree) -> PyTree:
    """Parameters, or what has their paths and shapes, with packed kernels; see `segments.pack`.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> params, capacity = {"out": {"kernel": jnp.eye(2) * 3}}, {"out/kernel": 2}
    >>> packed = pack(tables(mask, capacity), params)["out"]["kernel"]
    >>> packed.shape, sorted(packed.ravel().tolist())[-3:]
    ((2, 8), [0.0, 3.0, 3.0])
    """
    names = tuple(tables)
    leaves = zip(names, masks.pick(tree, names), strict=True)
    return masks.put(tree, names, [segments.pack(tables[path], leaf) for path, leaf in leaves])


def unpack(tables: Tables, tree: PyTree) -> PyTree:
    """The inverse of `pack`; zero where pruned.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> params, capacity = {"out": {"kernel": jnp.eye(2) * 3}}, {"out/kernel": 2}
    >>> found = tables(mask, capacity)
    >>> unpack(found, pack(found, params))["out"]["kernel"].tolist()
    [[3.0, 0.0], [0.0, 3.0]]
    """
    names = tuple(tables)
    leaves = zip(names, masks.pick(tree, names), strict=True)
    return masks.put(tree, names, [segments.unpack(tables[path], leaf) for path, leaf in leaves])


def _packed_mask(tables: Tables, mask: Mask) -> Mask:
    """The mask of packed parameters: it leaves out padding, and what `mask` does elsewhere."""
    return masks.put(mask, tuple(tables), [table.kept for table in tables.values()])


def packed_model(model: Model, layers: Sequence[str], tables: Tables) -> Model:
    """A multilayer perceptron as functions of packed parameters.

    Its outputs and gradients are those of `model` at masked parameters, to float tolerance.

    Args:
      model: the net as functions of its dense parameters.
      layers: its layers in forward order.
      tables: of the packed kernels; may be traced. Their weights are packed, the others' dense.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> params, capacity = {"out": {"kernel": jnp.eye(2) * 3}}, {"out/kernel": 2}
    >>> found = tables(mask, capacity)
    >>> model = packed_model(None, ("out",), found)
    >>> model.apply(pack(found, params), {}, jnp.array([[1.0, 10.0]]))[0].tolist()
    [[3.0, 30.0]]
    """

    def init(key: Key) -> tuple[Params, Stats]:
        params, stats = model.init(key)
        return pack(tables, params), stats

    def apply(
        params: Params, stats: Stats, images: Array, key: Key | None = None, train: bool = False
    ) -> tuple[jax.Array, Stats]:
        del key, train
        x = jnp.reshape(images, (len(images), -1)).T
        for layer in layers:
            weights, table = params[layer], tables.get(f"{layer}/kernel")
            kernel = weights["kernel"]
            if table is not None and layer == layers[0]:
                x = segments.stored(table, x)
            x = kernel.T @ x if table is None else segments.product(table, kernel, x)
            if "bias" in weights:
                x = x + weights["bias"][:, None]
            if layer != layers[-1]:
                x = jax.nn.relu(x)
        return x.T, stats

    return Model(init, apply)


def pack_state(tables: Tables, state: TrainState) -> TrainState:
    """A dense training state as that of a training of packed parameters with a static mask.

    Args:
      tables: of the state's mask.
      state: with a sparse optimiser's state, whose moments have one number for each weight.

    Raises:
      ValueError: they have not, see `optimizer_states.map_moments`.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> params, capacity = {"out": {"kernel": jnp.eye(2) * 3}}, {"out/kernel": 2}
    >>> state = training.init(params, {}, masked(optax.sgd(1.0), mask))
    >>> found = tables(mask, capacity)
    >>> packed = pack_state(found, state)
    >>> packed.params["out"]["kernel"].shape, int(packed.mask["out"]["kernel"].sum())
    ((2, 8), 2)
    """
    sparse: SparseState = state.opt_state
    mask = _packed_mask(tables, sparse.mask)

    def moment(path: str, dense: Array) -> Array:
        return segments.pack(tables[path], dense) if path in tables else dense

    inner = optimizer_states.map_moments(moment, state.params, sparse.inner)
    packed = SparseState(mask, inner, (), sparse.calls)
    return state._replace(params=pack(tables, state.params), opt_state=packed)


def unpack_state(tables: Tables, packed: TrainState, state: TrainState) -> TrainState:
    """The inverse of `pack_state`, after training steps.

    Args:
      tables: as in `pack_state`.
      packed: the state of the packed training.
      state: the dense state before it, with the mask, and what its method carries.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> params, capacity = {"out": {"kernel": jnp.eye(2) * 3}}, {"out/kernel": 2}
    >>> state = training.init(params, {}, masked(optax.sgd(1.0), mask))
    >>> found = tables(mask, capacity)
    >>> back = unpack_state(found, pack_state(found, state), state)
    >>> back.params["out"]["kernel"].tolist()
    [[3.0, 0.0], [0.0, 3.0]]
    """

    def moment(path: str, now: Array) -> Array:
        return segments.unpack(tables[path], now) if path in tables else now

    inner = optimizer_states.map_moments(moment, packed.params, packed.opt_state.inner)
    sparse: SparseState = state.opt_state
    taken = packed.step - state.step if jax.tree.leaves(sparse.method) else 0  # static: no count
    sparse = sparse._replace(inner=inner, calls=sparse.calls + taken)
    return packed._replace(params=unpack(tables, packed.params), opt_state=sparse)


def advance(
    net: PackedNet,
    inner: optax.GradientTransformation,
    key: Key,
    state: TrainState,
    batches: PyTree,
    fetch: training.Fetch | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """`training.advance` with the mask of the state, and with packed kernels; may be traced.

    The training steps of methods that do nothing in them but mask, such as RigL and sparse
    evolution, are these; a move follows as `optimizer.update(..., move=True)`.

    Args:
      net: see `packed_net`.
      inner: the optimiser within the sparse optimiser. Of each weight it may see only its own
        gradient and moments: a norm over a leaf is one over kept weights.
      key, batches, fetch: as in `training.advance`.
      state: a state with dense parameters. More kept weights than the net has room for make
        parameters NaN.

    Returns:
      The state after the last batch, with dense parameters, and the metrics of `training.advance`.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> params, capacity = {"out": {"kernel": jnp.eye(2) * 3}}, {"out/kernel": 2}
    >>> state = training.init(params, {}, masked(optax.sgd(1.0), mask))
    >>> sum_of_outputs = lambda model: lambda params, stats, batch, key: (
    ...     model.apply(params, stats, batch)[0].sum(),
    ...     (stats, {}),
    ... )
    >>> net = PackedNet(None, ("out",), sum_of_outputs, capacity)
    >>> batches = jnp.ones((1, 1, 2))  # each kept weight has the gradient 1
    >>> state, _ = advance(net, optax.sgd(1.0), jax.random.key(0), state, batches)
    >>> state.params["out"]["kernel"].tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    found = tables(state.mask, net.capacity)
    packed = pack_state(found, state)
    loss = net.loss(packed_model(net.model, net.layers, found))
    optimizer = masked(inner, packed.mask)
    packed, metrics = training.advance(loss, optimizer, key, packed, batches, fetch)
    return unpack_state(found, packed, state), metrics


def advance_in(
    nets: Sequence[PackedNet],
    inner: optax.GradientTransformation,
    key: Key,
    state: TrainState,
    batches: PyTree,
    fetch: training.Fetch | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """`advance` in the first of several nets that has room for the state's mask; may be traced.

    One compiled program holds them all. Under `vmap` all are computed; in a loop over runs one is.

    Args:
      nets: as from `packed_nets`, of ever more room; the last has room for any mask.
      inner, key, state, batches, fetch: see `advance`.

    >>> mask = {"out": {"kernel": np.eye(2, dtype=bool)}}
    >>> params, capacity = {"out": {"kernel": jnp.eye(2) * 3}}, {"out/kernel": 2}
    >>> state = training.init(params, {}, masked(optax.sgd(1.0), mask))
    >>> sum_of_outputs = lambda model: lambda params, stats, batch, key: (
    ...     model.apply(params, stats, batch)[0].sum(),
    ...     (stats, {}),
    ... )
    >>> net = PackedNet(None, ("out",), sum_of_outputs, capacity)
    >>> nets = (net._replace(capacity={"out/kernel": 1}), net)  # the first is too small
    >>> batches = jnp.ones((1, 1, 2))  # each kept weight has the gradient 1
    >>> state, _ = advance_in(nets, optax.sgd(1.0), jax.random.key(0), state, batches)
    >>> state.params["out"]["kernel"].tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    if len(nets) == 1:
        return advance(nets[0], inner, key, state, batches, fetch)
    first = jnp.argmax(jnp.stack([_fits(net, state.mask) for net in nets]))
    return lax.switch(
        first,
        [partial(advance, net, inner, key, fetch=fetch) for net in nets],
        state,
        batches,
    )


def _fits(net: PackedNet, mask: Mask) -> Array:
    """Whether a net has room for the mask."""
    counts = masks.counts(mask, tuple(sorted(net.capacity)))
    return jnp.all(jnp.asarray([counts[path] <= net.capacity[path] for path in counts], bool))
