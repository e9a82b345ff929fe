"""A net without its removed units: the same class with smaller widths, and arrays that fit it.

A mask over units computes with zeros; here the zeros go. Li et al., "Pruning filters for efficient
ConvNets", 2017, section 3.1, remove a filter's kernel and the next layer's matching inputs; which
these are says the channel graph (see `graph`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets import masks, nets
from jaxtickets.compress import graph as graphs
from jaxtickets.compress.graph import Graph
from jaxtickets.compress.promise import gap_and_rounding
from jaxtickets.compress.report import Report, size
from jaxtickets.compress.widths import cut_widths, one_line
from jaxtickets.types import PyTree, Ticket, UnitMask

Standing = frozenset[tuple[str, int]]
"""The leaves and their axes on which a unit stands."""


def shrink(
    net: nn.Module, ticket: Ticket, units: UnitMask, graph: Graph
) -> tuple[nn.Module, Ticket, Report]:
    """The net and the ticket with only the units that stay.

    In evaluation mode the small ticket's outputs are, to float tolerance, those of the large one
    under its own mask and that of the units (`masks.expand`). A unit that groups share stays where
    one of them keeps it; in the others the small mask switches it off.

    Args:
      net: a flax module with the widths of its layers in a tuple of integers, `widths`.
      ticket: its parameters, statistics and mask, unbatched.
      units: `{group: bool[units]}` for groups of `graph.wiring`; an absent one stays whole.
      graph: the net's (`graph.trace`).

    Returns:
      The small net, its ticket, and what was gained.

    Raises:
      ValueError: in one line: the mask isn't one of the parameters, a layer would lose all of its
        units, no width sets a layer's units, the net with the new widths has another channel graph,
        or its outputs for random inputs are others, and who reads the units by which they differ.
    """
    masks.check_mask(ticket.mask, ticket.params)
    small_net, cut = _made(net, ticket, units, graph)
    gap, allowed = gap_and_rounding(net, ticket, units, graph, small_net, cut)
    if not gap <= allowed:
        raise ValueError(_readers(net, ticket, units, graph, gap))
    small = graphs.kept(graph, units)
    names = {
        group.name: (int(small[graph.units[group.name]].sum()), group.size)
        for group in graph.wiring
    }
    before, after = (nets.multiply_adds(one, graph.image) for one in (net, small_net))
    return small_net, cut, Report(names, size(ticket, before), size(cut, after))


def _made(
    net: nn.Module, ticket: Ticket, units: UnitMask, graph: Graph
) -> tuple[nn.Module, Ticket]:
    """The small net and its ticket, by the graph alone."""
    stays = graphs.kept(graph, units)
    counts = {name: int(stays[places].sum()) for name, places in graph.units.items()}
    for name, count in counts.items():
        if count == 0:
            raise ValueError(f"no unit is left in {name}: keep at least one")
    small_net = net.clone(widths=cut_widths(net, graph, counts))
    try:
        small = graphs.trace(small_net, graph.image, graph.depthwise)
    except Exception as error:  # whatever a user's net raises where its widths don't fit
        raise ValueError(
            f"{type(net).__name__} can't have widths={small_net.widths}: {one_line(error)}"
        ) from error
    return small_net, _cut(ticket, graph, small, units, stays)


def _readers(net: nn.Module, ticket: Ticket, units: UnitMask, graph: Graph, gap: float) -> str:
    """A line that says which layer reads units so that they can't go."""
    guilty = []
    for group in graph.wiring:
        one = {group.name: units[group.name]} if group.name in units else {}
        if one and not np.all(one[group.name]):
            small_net, cut = _made(net, ticket, one, graph)
            alone, allowed = gap_and_rounding(net, ticket, one, graph, small_net, cut)
            if not alone <= allowed:
                guilty.append(group)
    layers = dict.fromkeys(feed.layer for group in guilty for feed in group.consumers)
    names = ", ".join(group.name for group in guilty) or "several layers"
    readers = ", ".join(layers) or "an operation that knows how many there are"
    return (
        f"the small {type(net).__name__} isn't the masked one: off by {gap:.2g} of its largest "
        f"output without units of {names}, which are read by {readers}"
    )


def _cut(ticket: Ticket, graph: Graph, small: Graph, units: UnitMask, stays: np.ndarray) -> Ticket:
    """The ticket's arrays with the units that stay, in the small net's order.

    Raises:
      ValueError: the small net's arrays have other shapes.
    """
    source = _source(graph, small, stays)
    index: dict[str, dict[int, np.ndarray]] = {path: {} for path in small.axes}
    for path, axis in ((path, axis) for path, axes in small.axes.items() for axis in axes):
        new, old = source[small.axes[path][axis]], graph.axes[path][axis]
        (left,) = np.nonzero(stays[old])
        if len(left) != len(new):
            raise ValueError(f"{path} would have {len(left)} places for {len(new)} units")
        index[path][axis] = np.empty(len(new), int)
        # a unit's several places, those of the pixels before a flatten, keep their order
        index[path][axis][np.argsort(new, kind="stable")] = left[
            np.argsort(old[left], kind="stable")
        ]

    def cut(kind: str, tree: PyTree) -> PyTree:
        leaves = []
        for path, leaf in zip(masks.paths(tree), jax.tree.leaves(tree), strict=True):
            leaf = np.asarray(leaf)
            for axis, places in index[f"{kind}/{path}"].items():
                leaf = leaf.take(places, axis)
            leaves.append(jnp.asarray(leaf))
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    params, mask = cut("params", ticket.params), cut("params", ticket.mask)
    wiring, off = [], {}  # units that stay for the sake of another group
    for group in graph.wiring:
        path = graphs.kernel_of(small, group.producers[0])
        here = source[small.axes[f"params/{path}"][-1]]
        wiring.append(group._replace(size=len(here)))
        on = np.ones(len(stays), bool)
        on[graph.units[group.name]] = units.get(group.name, True)
        if not on[here].all():
            off[group.name] = on[here]
    if off:
        expand = jax.jit(masks.expand, static_argnums=1)
        mask = jax.tree.map(jnp.logical_and, mask, expand(off, tuple(wiring), params))
    return ticket._replace(params=params, stats=cut("batch_stats", ticket.stats), mask=mask)


def _source(graph: Graph, small: Graph, stays: np.ndarray) -> np.ndarray:
    """Unit of the small net -> unit of the large one.

    A unit is known by the axes on which it stands: units that share them all are taken in order.
    Padding may ask for another order than the large net's: what comes from an earlier stage stands
    first there, wherever it stood before.

    Raises:
      ValueError: the small net's units stand on other axes.
    """
    before, after = _standing(graph, stays), _standing(small, None)
    if {axes: len(units) for axes, units in before.items()} != {
        axes: len(units) for axes, units in after.items()
    }:
        raise ValueError("the net with the new widths has its units on other axes")
    source = np.zeros(1 + max(max(units) for units in after.values()), int)
    for axes, units in after.items():
        source[units] = before[axes]
    return source


def _standing(graph: Graph, stays: np.ndarray | None) -> dict[Standing, list[int]]:
    """Axes -> the units that stand on just these, in order."""
    standing: dict[int, list[tuple[str, int]]] = {}
    for path, places in graph.axes.items():
        for axis, units in places.items():
            for unit in np.unique(units):
                if stays is None or stays[unit]:
                    standing.setdefault(int(unit), []).append((path, axis))
    found: dict[Standing, list[int]] = {}
    for unit in sorted(standing):
        found.setdefault(frozenset(standing[unit]), []).append(unit)
    return found
