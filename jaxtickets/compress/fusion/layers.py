"""A net's layers as the rules see them, and the weights as the rules change them."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxtickets import masks
from jaxtickets.compress.fusion.base import Combination, Layer
from jaxtickets.compress.graph import Graph
from jaxtickets.compress.unit_outputs import unit_outputs
from jaxtickets.types import Array, Params, PyTree, Stats, Units

EPSILON = 1e-5
"""What the nets' batch norms add to the variance."""


def fusible(graph: Graph) -> tuple[Units, ...]:
    """The groups of units that can be fused, in forward order.

    A group must have one layer that computes it, at most one batch norm, and units of its own. The
    channels of a residual stream, and those of depthwise convolutions, have several layers that
    compute them: these groups stay whole, as in Kim et al., 2020. Each unit is taken to pass
    through a positively homogeneous activation such as ReLU after its batch norm, and pools.

    Raises:
      ValueError: there is no such group.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> [group.name for group in fusible(traced)]
    ['fc1', 'fc2']
    """
    found = []
    for group in graph.wiring:
        others = [places for name, places in graph.units.items() if name != group.name]
        shared = bool(others) and np.isin(graph.units[group.name], np.concatenate(others)).any()
        plain = len(group.producers) == 1 and len(group.norms) <= 1 and not group.spans
        if plain and not shared and group.size > 1:
            found.append(group)
    if not found:
        raise ValueError(
            "no layer's units can be fused: it takes a hidden layer of two units or more "
            "that no residual sum, concatenation or depthwise convolution ties to another"
        )
    return tuple(found)


def layer_of(
    params: Params,
    stats: Stats,
    group: Units,
    gram: Array | None = None,
    epsilon: float = EPSILON,
) -> Layer:
    """A group of units as the rules see it.

    Args:
      params, stats: the net's parameters and statistics.
      group: one of `fusible`.
      gram: float`[units, units]` of `grams`; None: no data.
      epsilon: what its batch norm adds to the variance.

    >>> from jaxtickets.types import Feed
    >>> group = Units("fc", 2, producers=("fc",), norms=(), consumers=(Feed("out", 1),))
    >>> params = {
    ...     "fc": {"bias": np.array([3.0, 6.0]), "kernel": np.array([[1.0, 2.0]])},
    ...     "out": {"kernel": np.array([[5.0], [7.0]])},
    ... }
    >>> layer = layer_of(params, {}, group)
    >>> layer.rows.tolist(), layer.outgoing.tolist()
    ([[1.0, 3.0], [2.0, 6.0]], [[5.0], [7.0]])
    """
    leaves = _leaves(params)
    kernel = leaves[masks.kernel_path(params, group.producers[0])].astype(float)
    weights, bias = kernel.reshape(-1, group.size).T, np.zeros(group.size)
    bias = bias + leaves.get(_path(group.producers[0], "bias"), 0.0)
    for norm in group.norms:
        gain = _gains(params, stats, group, epsilon)
        shift = leaves.get(_path(norm, "bias"), np.zeros(group.size))
        bias = shift + gain * (bias - _leaves(stats)[_path(norm, "mean")])
        weights = gain[:, None] * weights
    read = [
        np.moveaxis(_by_unit(leaves[masks.kernel_path(params, layer)], repeat), -2, 0)
        for layer, repeat in group.consumers
    ]
    outgoing = np.concatenate([one.reshape(group.size, -1) for one in read], 1).astype(float)
    known = None if gram is None else np.asarray(gram, float)
    return Layer(weights, bias, outgoing, bool(group.norms), known)


def combine(
    params: Params,
    stats: Stats,
    group: Units,
    combination: Combination,
    epsilon: float = EPSILON,
) -> tuple[Params, Stats]:
    """The parameters and statistics with a group's weights combined.

    With batch norm, `w_i` folded is `γ_i w_i / σ_i`, and unit k keeps its `γ / σ`. Its kernel
    becomes `Σ_i a_ik (γ_i σ_k / γ_k σ_i) w_i`, its mean likewise, its shift `Σ_i a_ik β_i`. The
    deviation of its new input is taken to be that of fully correlated units,
    `Σ_i a_ik |γ_i / γ_k| σ_k`, and its scale is set to fit: in evaluation mode this is exact, and
    estimating the statistics again (`compress.batch_norm`) corrects the deviation. A unit with
    γ = 0 keeps its own weights.

    Args:
      params, stats: the net's parameters and statistics.
      group: one of `fusible`.
      combination: what becomes of its units.
      epsilon: what its batch norm adds to the variance.

    >>> from jaxtickets.types import Feed
    >>> group = Units("fc", 2, producers=("fc",), norms=(), consumers=(Feed("out", 1),))
    >>> params = {
    ...     "fc": {"bias": jnp.array([3.0, 6.0]), "kernel": jnp.array([[1.0, 2.0]])},
    ...     "out": {"kernel": jnp.array([[5.0], [7.0]])},
    ... }
    >>> stays, merged = np.diag([1.0, 0.0]), np.array([[1.0, 0.0], [2.0, 0.0]])
    >>> new, _ = combine(params, {}, group, Combination(stays, merged))
    >>> new["fc"]["kernel"].tolist(), new["out"]["kernel"].tolist()  # 5 + 2 · 7
    ([[1.0, 0.0]], [[19.0], [0.0]])
    """
    producer = group.producers[0]
    incoming, gain = combination.incoming, np.ones(group.size)
    if group.norms:
        gain = _gains(params, stats, group, epsilon)
        own = np.diag(np.diag(incoming) != 0).astype(float)
        incoming = np.where((gain == 0)[None], own, incoming)
    safe = np.where(gain == 0, 1, gain)
    ratio = incoming * np.where(gain == 0, 1, gain)[:, None] / safe[None]
    leaves, known = _leaves(params), _leaves(stats)
    new, moved = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for path in (masks.kernel_path(params, producer), _path(producer, "bias")):
        if path in leaves:
            new[path] = leaves[path] @ ratio
    for norm in group.norms:
        wide = np.sqrt(known[_path(norm, "var")].astype(float) + epsilon) @ np.abs(ratio)
        moved[_path(norm, "mean")] = known[_path(norm, "mean")] @ ratio
        moved[_path(norm, "var")] = np.maximum(wide**2 - epsilon, 0)
        if _path(norm, "scale") in leaves:
            new[_path(norm, "scale")] = gain * wide
        if _path(norm, "bias") in leaves:
            new[_path(norm, "bias")] = leaves[_path(norm, "bias")] @ incoming
    for layer, repeat in group.consumers:
        path = masks.kernel_path(params, layer)
        kernel = _by_unit(new.get(path, leaves[path]), repeat)
        new[path] = (combination.outgoing.T @ kernel).reshape(leaves[path].shape)
    return _put(params, new), _put(stats, moved)


def combined_mask(mask: PyTree, params: Params, group: Units, combination: Combination) -> PyTree:
    """The mask of the combined weights: a weight is kept if one of its parts is kept.

    Args:
      mask: bool like `params`.
      params: the net's parameters, for their paths.
      group: one of `fusible`.
      combination: what becomes of its units.

    >>> from jaxtickets.types import Feed
    >>> group = Units("fc", 2, producers=("fc",), norms=(), consumers=(Feed("out", 1),))
    >>> mask = {
    ...     "fc": {"bias": np.array([True, True]), "kernel": np.array([[True, True]])},
    ...     "out": {"kernel": np.array([[False], [True]])},
    ... }
    >>> stays, merged = np.diag([1.0, 0.0]), np.array([[1.0, 0.0], [2.0, 0.0]])
    >>> combined_mask(mask, mask, group, Combination(stays, merged))["out"]["kernel"].tolist()
    [[True], [False]]
    """
    leaves = _leaves(mask)
    incoming, outgoing = combination.incoming != 0, combination.outgoing != 0
    new = dict[str, np.ndarray]()
    for layer in group.producers + group.norms:
        names = [_path(layer, name) for name in ("bias", "scale")]
        if layer in group.producers:
            names.append(masks.kernel_path(params, layer))
        new |= {path: leaves[path] @ incoming for path in names if path in leaves}
    for layer, repeat in group.consumers:
        path = masks.kernel_path(params, layer)
        kernel = _by_unit(new.get(path, leaves[path]), repeat)
        new[path] = (outgoing.T @ kernel).reshape(leaves[path].shape)
    return _put(mask, new)


def grams(
    net: nn.Module,
    params: Params,
    stats: Stats,
    graph: Graph,
    batches: Array,
    prepare: Callable[[Array], Array] | None = None,
) -> dict[str, jax.Array]:
    """`{group: float[units, units]}`: the mean products of the units' outputs over data.

    The outputs are what the first layer that reads the group gets, after activation and pool; each
    pixel counts as an example. The net is in evaluation mode.

    Args:
      net: the flax module, whose layers that read units are submodules.
      params, stats: its parameters and statistics.
      graph: its channel graph.
      batches: `[batches, n, ...]`, batches of images.
      prepare: the normalisation of a batch's images; None: they are float and normalised.

    Raises:
      ValueError: there are no batches, or a layer that reads units is not a submodule.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> params, _ = nets.functional(net, (2, 2, 1)).init(jax.random.key(0))
    >>> params = jax.tree.map(jnp.ones_like, params)
    >>> found = grams(net, params, {}, traced, jnp.ones((1, 1, 2, 2, 1)))
    >>> found["fc1"].shape, float(found["fc1"][0, 0])  # (2 · 2 + 1)²
    ((4, 4), 25.0)
    """
    groups = fusible(graph)
    if not (jnp.ndim(batches) > 1 and len(batches)):
        raise ValueError("the outputs of units need at least one batch of images")

    def of_batch(images: Array) -> dict[str, jax.Array]:
        seen = unit_outputs(net, params, stats, groups, graph.image, images, prepare)
        return {name: outputs.T @ outputs / len(outputs) for name, outputs in seen.items()}

    def add(total: PyTree, images: Array) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, of_batch(images)), None

    zeros = {group.name: jnp.zeros((group.size, group.size)) for group in groups}
    total = lax.scan(add, zeros, batches)[0]
    return {name: one / len(batches) for name, one in total.items()}


def _gains(params: Params, stats: Stats, group: Units, epsilon: float) -> np.ndarray:
    """float`[units]`: `γ / σ` of the group's batch norm."""
    norm = group.norms[0]
    scale = _leaves(params).get(_path(norm, "scale"), np.ones(group.size))
    return np.asarray(scale / np.sqrt(_leaves(stats)[_path(norm, "var")].astype(float) + epsilon))


def _by_unit(kernel: np.ndarray, repeat: int) -> np.ndarray:
    """A reader's kernel `[..., repeat * units, outputs]` as `[..., repeat, units, outputs]`."""
    *lead, inputs, outputs = kernel.shape
    return kernel.reshape(*lead, repeat, inputs // repeat, outputs)


def _leaves(tree: PyTree) -> dict[str, np.ndarray]:
    return dict(zip(masks.paths(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True))


def _put(tree: PyTree, new: Mapping[str, np.ndarray]) -> PyTree:
    """The tree with new leaves, in the types of the old ones."""
    paths: Sequence[str] = masks.paths(tree)
    leaves = [
        jnp.asarray(new[path], jnp.result_type(leaf)) if path in new else leaf
        for path, leaf in zip(paths, jax.tree.leaves(tree), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _path(layer: str, leaf: str) -> str:
    return f"{layer}/{leaf}" if layer else leaf
