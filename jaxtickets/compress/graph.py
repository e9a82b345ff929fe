"""The channel graph: which units the axes of a net's leaves index, traced from its jaxpr.

Units that an operation combines can only be removed together: units that meet in a residual sum, a
depthwise convolution, or a batch norm. A dense layer after a flatten reads each unit once for each
pixel. None of this is written by hand for an architecture; it is read from the equations of the net
in evaluation mode (see `unit_tracing`). Liu et al., "Group Fisher pruning for practical network
compression", 2021, and Fang et al., "DepGraph: towards any structural pruning", 2023, find the same
groups from autograd graphs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxtickets import masks, nets
from jaxtickets.compress.unit_tracing import (
    FIXED,
    FREE,
    Axes,
    Known,
    Seen,
    UntraceableError,
    Value,
    Weights,
    walk,
)
from jaxtickets.nets.convolution import lax_form
from jaxtickets.nets.functional import Example
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Feed, PyTree, UnitMask, Units, Wiring


class Graph(NamedTuple):
    """The units of a net.

    A unit is an integer, numbered over the whole net; `FIXED` stands for everything that cannot be
    removed: the images' channels and the logits.

    Attributes:
      wiring: the groups by name, for `masks.expand`. Groups share units if channels are padded with
        zeros between them, as in a residual net's shortcut without weights.
      units: group -> int`[size]`, its units in order.
      axes: path in `{'params': ..., 'batch_stats': ...}` -> axis, counted from the end ->
        int`[size]`, the unit at each position.
      depthwise: the paths of the kernels that filter each channel separately.
      image: the net's input for one example, such as `(h, w, c)`, see `nets.functional`.
    """

    wiring: Wiring
    units: dict[str, np.ndarray]
    axes: Axes
    depthwise: frozenset[str]
    image: Example


def trace(net: nn.Module, shape: Example, depthwise: frozenset[str] = frozenset()) -> Graph:
    """The channel graph of a flax module.

    All outputs of the net, one array or several, are logits, which stay.

    Args:
      net: any flax module.
      shape: the input for one example, such as `(h, w, c)`, see `nets.functional`.
      depthwise: the kernels known to filter each channel separately; with a single channel, they
        cannot be recognised.

    Raises:
      ValueError: in one line that names the net, the layer and the operation: an operation has no
        rule, or a `Wiring` cannot express how units are tied.
    """
    model = nets.functional(lax_form(net), shape)
    params, stats = jax.eval_shape(model.init, jax.random.key(0))
    given = nets.example_inputs(shape)
    closed = jax.make_jaxpr(lambda *inputs: model.apply(*inputs)[0])(params, stats, given)
    leaves = _leaves(params, stats)
    axes = _number(leaves)
    seen = Seen(axes, [], {}, set(depthwise), [])
    inputs: list[Known] = [_leaf(path, size, axes[path]) for path, size in leaves.items()]
    inputs += [Value(np.full((1,) * len(one.shape), FIXED), one.shape) for one in given]
    try:
        for logits in walk(closed.jaxpr, inputs, seen):
            if isinstance(logits, Value):
                seen.tie(np.array(FIXED), logits.labels)
            else:  # an output that is an unchanged leaf
                for labels in axes[logits.path].values():
                    seen.tie(np.array(FIXED), labels)
        number = _join(axes, seen.ties)
        _check_claims(axes, number, seen.claims)
        axes = {
            path: {axis: number[labels] for axis, labels in leaf.items()}
            for path, leaf in axes.items()
        }
        groups, units = _groups(axes, seen.order)
    except UntraceableError as error:
        raise ValueError(f"the units of {type(net).__name__} can't be traced: {error}") from None
    return Graph(groups, units, axes, frozenset(seen.depthwise), shape)


def kept(graph: Graph, units: UnitMask) -> np.ndarray:
    """bool`[units]`: which units are kept; a shared unit is kept if one of its groups keeps it.

    Raises:
      ValueError: a name is not that of a group, the number of units differs, or a mask is not bool.
    """

    count = 1 + max(int(places.max()) for axes in graph.axes.values() for places in axes.values())
    stays = np.ones(count, bool)
    for places in graph.units.values():
        stays[places] = False
    sizes = {name: places.shape for name, places in graph.units.items()}
    for name, mask in units.items():
        if np.shape(mask) != sizes.get(name):
            raise ValueError(f"a mask of {np.shape(mask)} for units '{name}'; there are {sizes}")
        check_array(f"the mask of units '{name}'", mask, sizes[name], bool)
    for name, places in graph.units.items():
        stays[places] |= np.asarray(units.get(name, np.ones(len(places), bool)))
    return stays


def kernel_of(graph: Graph, layer: str) -> str:
    """The path in the parameters of the kernel of a layer that computes or reads units."""
    prefix = f"params/{layer}/" if layer else "params/"
    own = [path for path in graph.axes if path.startswith(prefix) and -2 in graph.axes[path]]
    own = [path for path in own if "/" not in path.removeprefix(prefix)]
    named = [path for path in own if path == f"{prefix}kernel"]
    return (named or own)[0].removeprefix("params/")


def _leaves(params: PyTree, stats: PyTree) -> dict[str, tuple[int, ...]]:
    """Path -> shape of all leaves, in the order of the jaxpr's arguments."""
    return {
        f"{kind}/{path}": leaf.shape
        for kind, tree in (("params", params), ("batch_stats", stats))
        for path, leaf in zip(masks.paths(tree), jax.tree.leaves(tree), strict=True)
    }


def _number(leaves: Mapping[str, tuple[int, ...]]) -> Axes:
    """New labels for the last axis of each leaf, and for the last but one if there is one."""
    start = FIXED + 1
    axes: Axes = {}
    for path, shape in leaves.items():
        axes[path] = {}
        for axis in (-1, -2)[: len(shape)]:
            axes[path][axis] = np.arange(start, start + shape[axis])
            start += shape[axis]
    return axes


def _leaf(path: str, shape: tuple[int, ...], axes: Mapping[int, np.ndarray]) -> Known:
    """A leaf as an input of the walk."""
    if not shape:
        return Value(np.array(FREE), shape, path)
    if len(shape) == 1:
        return Value(axes[-1], shape, path)
    return Weights(path, shape, np.arange(int(np.prod(shape))).reshape(shape))


def _join(axes: Axes, ties: Sequence[np.ndarray]) -> np.ndarray:
    """Label -> unit: tied labels get one number; units are numbered in the order of labels."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = 1 + max(int(labels.max()) for leaf in axes.values() for labels in leaf.values())
    first, second = np.concatenate([np.empty((2, 0), int), *ties], 1)
    pairs = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    numbers = connected_components(pairs, directed=False)[1]
    lowest = np.unique(numbers, return_index=True)[1][numbers]  # the lowest label tied to each
    return np.unique(lowest, return_inverse=True)[1]


def _check_claims(axes: Axes, number: np.ndarray, claims: Sequence[tuple[str, np.ndarray]]) -> None:
    """Raises UntraceableError unless claimed labels are tied, and not two positions of one axis.

    The second condition applies to tied labels too: an operation over all units, such as their
    mean, ties all of them once the mean is subtracted from them. Fixed elements, such as logits,
    may be mixed.
    """
    home, layers = np.zeros(len(number), int), ["the images"]
    for path, leaf in axes.items():
        for labels in leaf.values():
            home[labels] = len(layers)
            layers.append(_layer(path))
    for place, (first, second) in claims:
        stays = (number[first] == number[FIXED]) & (number[second] == number[FIXED])
        mixed = (number[first] != number[second]) | (home[first] == home[second])
        mixed &= ~stays
        if mixed.any():
            raise UntraceableError(f"{place} mixes units of {layers[home[first[mixed][0]]]}")


def _groups(axes: Axes, order: Mapping[str, str]) -> tuple[Wiring, dict[str, np.ndarray]]:
    """The groups of layers, and their units.

    Args:
      axes: the units of the leaves.
      order: leaf path -> the first operation that reads the leaf, in the order of reading.

    Raises:
      UntraceableError: a `Wiring` cannot express how the units are tied.
    """
    groups: dict[frozenset[int], Units] = {}
    units: dict[str, np.ndarray] = {}
    kernels = _kernels(axes, order)
    for layer, path in kernels.items():
        made, by = axes[path][-1], f"('{order[path]}')"
        if (made == FIXED).all():
            continue
        if FIXED in made or len(np.unique(made)) < len(made):
            raise UntraceableError(
                f"the units of {layer} are tied with one another or with images {by}"
            )
        group = groups.setdefault(frozenset(made), Units(layer, len(made), (), (), ()))
        _check_order(layer, made, units.setdefault(group.name, made), group.name, by)
        groups[frozenset(made)] = group._replace(producers=(*group.producers, layer))
    inside = np.concatenate([np.empty(0, int), *units.values()])
    for layer in dict.fromkeys(map(_layer, order)):
        norm = layer not in kernels
        path = _norm_leaf(axes, layer) if norm else kernels[layer]
        places = axes[path].get(-1 if norm else -2, np.empty(0, int))
        if not np.isin(places, inside).any():  # of images, of logits, or depthwise
            continue
        by = f"('{order.get(path, 'no operation')}')"
        if frozenset(places) not in groups:
            raise UntraceableError(
                f"{layer} reads units of several layers, or not all of a layer {by}"
            )
        group = groups[frozenset(places)]
        repeat = 1 if norm else len(places) // group.size
        ordered = np.tile(units[group.name], repeat)
        _check_order(layer, places, ordered, group.name, by)
        groups[frozenset(places)] = (
            group._replace(norms=(*group.norms, layer))
            if norm
            else group._replace(consumers=(*group.consumers, Feed(layer, repeat)))
        )
    return tuple(groups.values()), units


def _kernels(axes: Axes, order: Mapping[str, str]) -> dict[str, str]:
    """Layer -> its kernel, as `masks.kernel_path` finds it, in the order of reading.

    Raises:
      UntraceableError: several leaves of a layer read or compute units.
    """
    several: dict[str, list[str]] = {}
    for path in axes:
        if path.startswith("params/") and -2 in axes[path]:
            several.setdefault(_layer(path), []).append(path)
    found = {}
    for layer in dict.fromkeys(map(_layer, order)):
        there = several.get(layer, [])
        named = [path for path in there if path.endswith("/kernel")]
        (path,) = named or (there if len(there) == 1 else [""])
        for other in there:
            if other != path and any((units != FIXED).any() for units in axes[other].values()):
                raise UntraceableError(
                    f"{layer} reads or makes units by {other}, one of {len(there)} kernels "
                    f"('{order.get(other, 'no operation')}')"
                )
        if path:
            found[layer] = path
    return found


def _layer(path: str) -> str:
    """The layer of a leaf: `params/block/conv/kernel` -> `block/conv`."""
    return path.partition("/")[2].rpartition("/")[0]


def _norm_leaf(axes: Axes, layer: str) -> str:
    """A leaf of a layer that has no kernel."""
    return next(path for path in axes if _layer(path) == layer)


def _check_order(
    layer: str, places: np.ndarray, units: np.ndarray, name: str, operation: str
) -> None:
    if not np.array_equal(places, units):
        raise UntraceableError(f"{layer} has the units of {name} in another order {operation}")
