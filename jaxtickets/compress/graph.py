"""The channel graph: which units the axes of a net's leaves index, traced from its jaxpr.

Units that an operation combines can only be removed together: units that meet in a residual sum, a
depthwise convolution, or a norm. A dense layer after a flatten reads each unit once for each pixel.
Heads of attention, and groups of a convolution or norm, are units too, and so are the places within
them, each of which is one place of every head. None of this is written by hand for an architecture;
it is read from the equations of the net in evaluation mode (see `unit_tracing`). Liu et al., "Group
Fisher pruning for practical network compression", 2021, and Fang et al., "DepGraph: towards any
structural pruning", 2023, find the same groups from autograd graphs.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxtickets import masks, nets
from jaxtickets.compress.unit_labels import (
    FIXED,
    FREE,
    Axes,
    Seen,
    UntraceableError,
    Value,
    fixed,
    joined,
)
from jaxtickets.compress.unit_tracing import walk
from jaxtickets.nets.convolution import lax_form
from jaxtickets.nets.functional import Example
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Feed, Model, PyTree, Span, UnitMask, Units, Wiring


class Graph(NamedTuple):
    """The units of a net.

    A unit is an integer, numbered over the whole net; `FIXED` stands for everything that cannot be
    removed: the images' channels and the logits.

    Attributes:
      wiring: the groups by name, for `masks.expand`. Groups share units if channels are padded with
        zeros between them, as in a residual net's shortcut without weights.
      units: group -> int`[size]`, its units in order.
      axes: path in `{'params': ..., 'batch_stats': ...}` -> axis, counted from the end ->
        int`[size]`, the unit at each position; or int`[size, k]` if each position belongs to k
        units, such as a head and a place within it, and goes with any of them (see `along`).
      depthwise: the paths of the kernels that filter each channel separately.
      image: the net's input for one example, such as `(h, w, c)`, see `nets.functional`.
      reasons: layer -> why its units must stay, if `trace` was told not to refuse them.
    """

    wiring: Wiring
    units: dict[str, np.ndarray]
    axes: Axes
    depthwise: frozenset[str]
    image: Example
    reasons: Mapping[str, str] = {}


def trace(
    net: nn.Module | Model,
    shape: Example,
    depthwise: frozenset[str] = frozenset(),
    refuse: bool = True,
) -> Graph:
    """The channel graph of a flax module, or of any model.

    All outputs of the net, one array or several, are logits, which stay.

    Args:
      net: any flax module, or a model of `nets.functional` and its siblings.
      shape: the input for one example, such as `(h, w, c)`, see `nets.functional`.
      depthwise: the kernels known to filter each channel separately; with a single channel, they
        cannot be recognised.
      refuse: whether it is an error that an operation cannot do without units of a layer, such as a
        maximum over them; if not, they stay, and `Graph.reasons` says why.

    Raises:
      ValueError: in one line that names the net, the layer and the operation.

    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = trace(net, (2, 2, 1))
    >>> [(group.name, group.size, group.consumers[0].layer) for group in traced.wiring]
    [('fc1', 4, 'fc2'), ('fc2', 3, 'out')]
    """
    model = nets.as_model(lax_form(net), shape)
    params, stats = nets.init_shapes(model)
    given = nets.example_inputs(shape)
    closed = jax.make_jaxpr(lambda params, stats, images: model.apply(params, stats, images)[0])(
        params, stats, given if len(given) > 1 else given[0]
    )
    leaves = _leaves(params, stats)
    axes, count = _number(leaves)
    seen = Seen(itertools.count(count), [], {}, {}, {}, set(depthwise), [])
    inputs = [_leaf(path, size, axes[path]) for path, size in leaves.items()]
    inputs += [fixed(one.shape) for one in given]
    try:
        for logits in walk(closed.jaxpr, inputs, seen):
            seen.tie(np.array(FIXED), np.array(logits.whole))
            for axis in logits.axes:
                seen.fix(axis)
        reasons = _settle_claims(axes, seen, refuse)
        axes = _final(axes, *joined(seen, next(seen.numbers)))
        groups, units = _groups(axes, seen.order)
        axes = _grouped(axes, units)
    except UntraceableError as error:
        raise ValueError(f"the units of {type(net).__name__} can't be traced: {error}") from None
    axes = {
        path: {axis: units for axis, units in mine.items() if axis >= -2 or units.any()}
        for path, mine in axes.items()
    }
    return Graph(groups, units, axes, frozenset(seen.depthwise - {""}), shape, reasons)


def along(stays: np.ndarray, places: np.ndarray) -> np.ndarray:
    """bool`[size]`: which positions of an axis are kept.

    Args:
      stays: bool`[units]`, the units that are kept.
      places: int`[size]` or int`[size, k]`, an axis of `Graph.axes`.

    >>> along(np.array([True, False, True]), np.array([0, 1, 1, 2])).tolist()
    [True, False, False, True]
    """
    return stays[places] if places.ndim == 1 else stays[places].all(-1)


def kept(graph: Graph, units: UnitMask) -> np.ndarray:
    """bool`[units]`: which units are kept; a shared unit is kept if one of its groups keeps it.

    Raises:
      ValueError: a name is not that of a group, the number of units differs, or a mask is not bool.

    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = trace(net, (2, 2, 1))
    >>> traced.units["fc1"].tolist()
    [1, 2, 3, 4]
    >>> kept(traced, {"fc1": np.array([True, True, False, False])}).tolist()
    [True, True, True, False, False, True, True, True]
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
    """The path in the parameters of the kernel of a layer that computes or reads units.

    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = trace(net, (2, 2, 1))
    >>> kernel_of(traced, "fc1")
    'fc1/kernel'
    """
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


def _number(leaves: Mapping[str, tuple[int, ...]]) -> tuple[Axes, int]:
    """New labels for all axes of each leaf, from the last to the first; and their number."""
    start = FIXED + 1
    axes: Axes = {}
    for path, shape in leaves.items():
        axes[path] = {}
        for axis in range(-1, -len(shape) - 1, -1):
            axes[path][axis] = np.arange(start, start + shape[axis])
            start += shape[axis]
    return axes, start


def _leaf(path: str, shape: tuple[int, ...], axes: Mapping[int, np.ndarray]) -> Value:
    """A leaf as an input of the walk; a mask of units sets parameters to zero, not statistics."""
    masked = path.startswith("params/")
    labels = tuple((axes[axis],) for axis in range(-len(shape), 0))
    return Value(labels, (masked,) * len(shape), FREE, path)


def _settle_claims(axes: Axes, seen: Seen, refuse: bool) -> dict[str, str]:
    """Ties units that operations cannot do without to what stays; layer -> why.

    Claims about inputs and outputs, which stay anyway, and about axes other than the last, such as
    positions of a table, need no message.

    Raises:
      UntraceableError: `refuse`, and units of a layer are claimed.
    """
    reasons = dict[str, str]()
    for claim in sorted(seen.claims, key=lambda claim: claim.rule):
        lowest, atoms = joined(seen, next(seen.numbers))
        mine = set(_atoms(claim.labels, lowest, atoms).reshape(-1).tolist())
        mine -= {int(lowest[FIXED])}
        layer = _home(axes, mine, lowest, atoms) if mine else ""
        seen.fix((claim.labels,))
        if not layer:
            continue
        what = f"{claim.what} units of {layer}" if claim.rule else "has no rule for channels"
        message = f"{claim.place} {what}" + ("" if claim.rule else f" of {layer}")
        if refuse:
            raise UntraceableError(message)
        reasons[layer] = message
    return reasons


def _home(
    axes: Axes, units: set[int], lowest: np.ndarray, atoms: Mapping[int, tuple[int, ...]]
) -> str:
    """The first layer whose kernel computes one of the units; '' if there is none."""
    for path, leaf in axes.items():
        if path.startswith("params/") and len(leaf) > 1:
            mine = set(_atoms(leaf[-1], lowest, atoms).reshape(-1).tolist())
            if units & mine:
                return _layer(path) or path.partition("/")[2]
    return ""


def _atoms(
    labels: np.ndarray, lowest: np.ndarray, atoms: Mapping[int, tuple[int, ...]]
) -> np.ndarray:
    """int`[n, k]`: the joined labels of which each of these consists; those that repeat fill up."""
    lists = [atoms.get(int(label), (int(label),)) for label in lowest[labels]]
    most = max(map(len, lists), default=1)
    return np.array([(*some, *some[:1] * (most - len(some))) for some in lists]).reshape(-1, most)


def _final(axes: Axes, lowest: np.ndarray, atoms: Mapping[int, tuple[int, ...]]) -> Axes:
    """The axes in units, numbered in the order of labels."""
    tables = {
        path: {axis: _atoms(labels, lowest, atoms) for axis, labels in leaf.items()}
        for path, leaf in axes.items()
    }
    there = [table.reshape(-1) for leaf in tables.values() for table in leaf.values()]
    known = np.unique(np.concatenate([[lowest[FIXED]], *there]))
    final: Axes = {}
    for path, leaf in tables.items():
        final[path] = {}
        for axis, table in leaf.items():
            units = np.searchsorted(known, table)
            columns = [i for i in range(units.shape[1]) if i == 0 or units[:, i].any()]
            if len(columns) > 1 and not units[:, 0].any():
                columns = columns[1:]
            units = units[:, columns]
            final[path][axis] = units[:, 0] if len(columns) == 1 else units
    return final


def _grouped(axes: Axes, units: Mapping[str, np.ndarray]) -> Axes:
    """The axes with the units of groups; what is in no group stays."""
    inside = np.concatenate([[FIXED], *units.values()])
    final: Axes = {}
    for path, leaf in axes.items():
        final[path] = {}
        for axis, places in leaf.items():
            columns = [np.where(np.isin(one, inside), one, FIXED) for one in _columns(places)]
            columns = [one for one in columns if one.any()] or columns[:1]
            final[path][axis] = columns[0] if len(columns) == 1 else np.stack(columns, 1)
    return final


def _groups(axes: Axes, order: Mapping[str, str]) -> tuple[Wiring, dict[str, np.ndarray]]:
    """The groups of layers, and their units.

    Groups are first those of the last axes of kernels, then those of all other axes.

    Args:
      axes: the units of the leaves.
      order: leaf path -> the first operation that reads the leaf, in the order of reading.
    """
    leaves = _reading_order(axes, order)
    kernels = {path: _layer(path) for path in leaves if _is_kernel(path, axes)}
    units: dict[str, np.ndarray] = {}
    known: set[frozenset[int]] = set()
    covered: set[int] = {FIXED}
    every = [column for leaf in axes.values() for one in leaf.values() for column in _columns(one)]
    times = np.bincount(np.concatenate([np.unique(column) for column in every]))

    def add(path: str, axis: int, least: int) -> None:
        several = len(columns := _columns(axes[path][axis])) > 1
        for number, column in enumerate(columns):
            mine = column[np.sort(np.unique(column, return_index=True)[1])]
            if least > 1:  # a copy that one layer alone reads is no unit
                mine = mine[~np.isin(mine, list(covered)) & (times[mine] > 1)]
            mine = mine[mine != FIXED]
            if len(mine) >= least and frozenset(mine.tolist()) not in known:
                layer = _layer(path)
                named = path == _only_kernel(layer, kernels) and layer
                name = layer if named else path.partition("/")[2]
                if axis != -1 or several:
                    name += f"[{axis}.{number}]" if several else f"[{axis}]"
                units[name if name not in units else path.partition("/")[2]] = mine
                known.add(frozenset(mine.tolist()))
                covered.update(mine.tolist())

    for path in kernels:
        add(path, -1, 1)
    for path in leaves:
        if path.startswith("params/"):
            for axis in axes[path]:
                add(path, axis, 2)
    groups = {name: Units(name, len(mine), (), (), ()) for name, mine in units.items()}
    sets = {name: set(mine.tolist()) for name, mine in units.items()}
    for path in leaves:
        for axis, places in axes[path].items():
            for column in _columns(places):
                for name, indices in _shares(column, units, sets).items():
                    groups[name] = _with_leaf(groups[name], path, axis, indices, kernels)
    return tuple(groups.values()), units


def _reading_order(axes: Axes, order: Mapping[str, str]) -> list[str]:
    """The leaves of the layers that are read, in the order of reading layers."""
    by_layer: dict[str, list[str]] = {layer: [] for layer in dict.fromkeys(map(_layer, order))}
    place = {path: number for number, path in enumerate(order)}
    last = len(place)

    def rank(path: str) -> tuple[bool, int]:
        return not _is_kernel(path, axes), place.get(path, last)

    for path in sorted(axes, key=rank):
        if _layer(path) in by_layer:
            by_layer[_layer(path)].append(path)
    return [path for paths in by_layer.values() for path in paths]


def _is_kernel(path: str, axes: Axes) -> bool:
    """Whether a leaf is its layer's kernel: `kernel`, or if there is none, any with two axes."""
    if not path.startswith("params/") or len(axes[path]) < 2:
        return False
    named = f"{path.rpartition('/')[0]}/kernel"
    return path == named or named not in axes


def _columns(places: np.ndarray) -> list[np.ndarray]:
    return [places] if places.ndim == 1 else list(places.T)


def _shares(
    column: np.ndarray, units: Mapping[str, np.ndarray], sets: Mapping[str, set[int]]
) -> dict[str, np.ndarray]:
    """Group -> the index of its unit at each position of an axis, or -1.

    The group of all these units if there is one; else several, which share the positions.
    """
    left = set(column.tolist()) - {FIXED}
    if not left:
        return {}
    whole = [name for name, mine in sets.items() if mine == left]
    found: dict[str, np.ndarray] = {}
    for name in whole[:1] or units:
        if mine := sets[name] & left:
            index = {int(unit): i for i, unit in enumerate(units[name])}
            found[name] = np.array(
                [index[int(unit)] if int(unit) in mine else -1 for unit in column]
            )
            left -= mine
    return found


def _with_leaf(
    group: Units, path: str, axis: int, indices: np.ndarray, kernels: Mapping[str, str]
) -> Units:
    """The group with one more axis of a leaf: as a layer if that says all, else as a span."""
    layer, leaf = _layer(path), path.rpartition("/")[2]
    kernel = _only_kernel(layer, kernels)
    in_order = np.array_equal(indices, np.arange(group.size))
    repeat = len(indices) // group.size
    if path == kernel and axis == -1 and in_order:
        return group._replace(producers=(*group.producers, layer))
    if (
        path == kernel
        and axis == -2
        and np.array_equal(indices, np.tile(np.arange(group.size), repeat))
    ):
        return group._replace(consumers=(*group.consumers, Feed(layer, repeat)))
    if axis == -1 and in_order and leaf in ("bias", "scale") and layer in group.producers:
        return group
    stats = path.startswith("batch_stats/")
    if axis == -1 and in_order and kernel is None and (stats or leaf in ("bias", "scale")):
        return group._replace(norms=tuple(dict.fromkeys((*group.norms, layer))))
    if stats:
        return group
    return group._replace(
        spans=(*group.spans, Span(path.partition("/")[2], axis, tuple(indices.tolist())))
    )


def _only_kernel(layer: str, kernels: Mapping[str, str]) -> str | None:
    """The path of the layer's kernel, as `masks.kernel_path` finds it; '' if it has several."""
    mine = [path for path, of in kernels.items() if of == layer]
    return (mine[0] if len(mine) == 1 else "") if mine else None


def _layer(path: str) -> str:
    """The layer of a leaf: `params/block/conv/kernel` -> `block/conv`."""
    return path.partition("/")[2].rpartition("/")[0]
