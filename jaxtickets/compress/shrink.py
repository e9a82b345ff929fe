"""Shrinking: a net without the units that a mask removes, and arrays that fit it.

`shrink` gives the same net class with smaller widths; `shrink_model` a program, of any net.

A mask over units only sets them to zero; shrinking removes them. Li et al., "Pruning filters for
efficient ConvNets", 2017, section 3.1, remove a filter's kernel and the matching inputs of the next
layer. The channel graph says which inputs these are (see `graph`).
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets import masks, nets
from jaxtickets.compress import graph as graphs
from jaxtickets.compress.graph import Graph
from jaxtickets.compress.output_check import difference_and_rounding
from jaxtickets.compress.report import Report, size
from jaxtickets.compress.small_program import cut_tree, small_model
from jaxtickets.compress.widths import cut_widths, one_line
from jaxtickets.types import Model, PyTree, Ticket, UnitMask

Standing = frozenset[tuple[str, int]]
"""The leaves, and the axes of these, that index a unit."""


def shrink(
    net: nn.Module, ticket: Ticket, units: UnitMask, graph: Graph
) -> tuple[nn.Module, Ticket, Report]:
    """The net and the ticket with only the units that are kept.

    In evaluation mode, the small ticket's outputs equal, to float tolerance, those of the large
    ticket under its own mask and that of the units (`masks.expand`). A shared unit stays if one of
    its groups keeps it; in the other groups, the small mask switches it off.

    Args:
      net: a flax module whose attribute `widths` is a tuple of integers, the widths of its layers.
      ticket: the net's ticket, unbatched.
      units: `{group: bool[units]}` for groups of `graph.wiring`; an absent group stays whole.
      graph: the net's channel graph (`graph.trace`).

    Returns:
      The small net, its ticket, and the report of sizes.

    Raises:
      ValueError: in one line: the mask does not match the parameters; a layer would lose all its
        units; no width sets a layer's units; the net with the new widths has another channel graph;
        or its outputs for random inputs differ, in which case the message names the layers that
        read the units in question.

    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graphs.trace(net, (2, 2, 1))
    >>> params, stats = nets.functional(net, (2, 2, 1)).init(jax.random.key(0))
    >>> ticket = Ticket(params, stats, masks.ones(params), 0)
    >>> units = {"fc1": np.array([True, True, False, False])}
    >>> small_net, small, report = shrink(net, ticket, units, traced)
    >>> small_net.widths, small.params["fc2"]["kernel"].shape, report.units["fc1"]
    ((2, 3), (2, 3), (2, 4))
    """
    masks.check_mask(ticket.mask, ticket.params)
    small_net, cut = _small_net_and_ticket(net, ticket, units, graph)
    difference, allowed = difference_and_rounding(net, ticket, units, graph, small_net, cut)
    if not difference <= allowed:
        raise ValueError(_readers(net, ticket, units, graph, difference))
    small = graphs.kept(graph, units)
    names = {
        group.name: (int(small[graph.units[group.name]].sum()), group.size)
        for group in graph.wiring
    }
    before, after = (nets.multiply_adds(one, graph.image) for one in (net, small_net))
    return small_net, cut, Report(names, size(ticket, before), size(cut, after))


def shrink_model(
    model: Model, ticket: Ticket, units: UnitMask, graph: Graph
) -> tuple[Model, Ticket, Report]:
    """The model and the ticket with only the units that are kept, for any net.

    Nothing needs to be known of the net's class or widths: the small model runs the large net's
    equations on smaller arrays (see `small_program`). In evaluation mode, its outputs equal, to
    float tolerance, those of the large ticket under its own mask and that of the units
    (`masks.expand`). A shared unit stays if one of its groups keeps it; in the other groups, the
    small mask switches it off.

    Args:
      model: the net as functions, such as `nets.functional_nnx(module)`.
      ticket: the net's ticket, unbatched.
      units: `{group: bool[units]}` for groups of `graph.wiring`; an absent group stays whole.
      graph: the net's channel graph (`graph.trace`).

    Returns:
      The small model, its ticket, and the report of sizes.

    Raises:
      ValueError: in one line: the mask does not match the parameters; a group would lose all its
        units; an operation cannot run without the units; or the outputs for random inputs differ.

    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> model = nets.functional(net, (2, 2, 1))
    >>> traced = graphs.trace(model, (2, 2, 1))
    >>> params, stats = model.init(jax.random.key(0))
    >>> ticket = Ticket(params, stats, masks.ones(params), 0)
    >>> units = {"fc1": np.array([True, True, False, False])}
    >>> _, small, report = shrink_model(model, ticket, units, traced)
    >>> small.params["fc2"]["kernel"].shape, report.units["fc1"]
    ((2, 3), (2, 4))
    """
    masks.check_mask(ticket.mask, ticket.params)
    stays = graphs.kept(graph, units)
    names = {name: (int(stays[places].sum()), len(places)) for name, places in graph.units.items()}
    _check_left(names)
    alone = masks.expand(units, graph.wiring, ticket.params)
    small = small_model(model, graph, units)
    cut = ticket._replace(
        params=cut_tree("params", ticket.params, graph, stays),
        stats=cut_tree("batch_stats", ticket.stats, graph, stays),
        mask=cut_tree("params", jax.tree.map(jnp.logical_and, ticket.mask, alone), graph, stays),
    )
    difference, allowed = difference_and_rounding(model, ticket, units, graph, small, cut)
    if not difference <= allowed:
        raise ValueError(
            f"the small model isn't the masked one: off by {difference:.2g} of its largest output"
        )
    before, after = (nets.multiply_adds(one, graph.image) for one in (model, small))
    return small, cut, Report(names, size(ticket, before), size(cut, after))


def _check_left(names: Mapping[str, tuple[int, int]]) -> None:
    """Raises ValueError if a group keeps none of its units."""
    for name, (count, _) in names.items():
        if count == 0:
            raise ValueError(f"no unit is left in {name}: keep at least one")


def shrink_alike(
    net: nn.Module, tickets: Sequence[Ticket], units: Sequence[UnitMask], graph: Graph
) -> tuple[nn.Module, list[Ticket], Report]:
    """Like `shrink`, for several tickets that keep equally many units of each group.

    The small net is traced, and its outputs are compared, for the first ticket alone. This takes a
    fraction of the time.

    Args:
      net, graph: as in `shrink`.
      tickets: tickets of the net.
      units: the units that each of them keeps.

    Returns:
      The small net, the small tickets, and the report of the first.

    Raises:
      ValueError: as in `shrink`; or a ticket keeps other numbers of units than the first.

    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graphs.trace(net, (2, 2, 1))
    >>> params, stats = nets.functional(net, (2, 2, 1)).init(jax.random.key(0))
    >>> ticket = Ticket(params, stats, masks.ones(params), 0)
    >>> first, second = (np.array(bits, bool) for bits in ([1, 1, 0, 0], [0, 1, 0, 1]))
    >>> units = [{"fc1": first}, {"fc1": second}]
    >>> small_net, small, _ = shrink_alike(net, [ticket, ticket], units, traced)
    >>> small_net.widths, [one.params["fc2"]["kernel"].shape for one in small]
    ((2, 3), [(2, 3), (2, 3)])
    """
    small_net, first, report = shrink(net, tickets[0], units[0], graph)
    small = graphs.trace(small_net, graph.image, graph.depthwise)
    rest = []
    for ticket, mine in zip(tickets[1:], units[1:], strict=True):
        masks.check_mask(ticket.mask, ticket.params)
        stays = graphs.kept(graph, mine)
        for name, places in graph.units.items():
            if (count := int(stays[places].sum())) != report.units[name][0]:
                raise ValueError(
                    f"{count} units of {name} stay, of the first {report.units[name][0]}"
                )
        rest.append(_cut(ticket, graph, small, mine, stays))
    return small_net, [first, *rest], report


def _small_net_and_ticket(
    net: nn.Module, ticket: Ticket, units: UnitMask, graph: Graph
) -> tuple[nn.Module, Ticket]:
    """The small net and its ticket, from the graph alone."""
    stays = graphs.kept(graph, units)
    counts = {name: int(stays[places].sum()) for name, places in graph.units.items()}
    _check_left({name: (count, len(graph.units[name])) for name, count in counts.items()})
    small_net = net.clone(widths=cut_widths(net, graph, counts))
    try:
        small = graphs.trace(small_net, graph.image, graph.depthwise)
    except Exception as error:  # any error of a user's net whose widths don't fit
        raise ValueError(
            f"{type(net).__name__} can't have widths={small_net.widths}: {one_line(error)}"
        ) from error
    return small_net, _cut(ticket, graph, small, units, stays)


def _readers(
    net: nn.Module, ticket: Ticket, units: UnitMask, graph: Graph, difference: float
) -> str:
    """One line that names the layers whose units cannot be removed, and their readers."""
    guilty = []
    for group in graph.wiring:
        group_units = {group.name: units[group.name]} if group.name in units else {}
        if group_units and not np.all(group_units[group.name]):
            small_net, cut = _small_net_and_ticket(net, ticket, group_units, graph)
            difference, allowed = difference_and_rounding(
                net, ticket, group_units, graph, small_net, cut
            )
            if not difference <= allowed:
                guilty.append(group)
    layers = dict.fromkeys(feed.layer for group in guilty for feed in group.consumers)
    names = ", ".join(group.name for group in guilty) or "several layers"
    readers = ", ".join(layers) or "an operation that knows how many there are"
    return (
        f"the small {type(net).__name__} isn't the masked one: off by {difference:.2g} of its "
        f"largest output without units of {names}, which are read by {readers}"
    )


def _cut(ticket: Ticket, graph: Graph, small: Graph, units: UnitMask, stays: np.ndarray) -> Ticket:
    """The ticket's arrays with the kept units, in the small net's order.

    Raises:
      ValueError: the small net's arrays have other shapes.
    """
    source = _source(graph, small, stays)
    index: dict[str, dict[int, np.ndarray]] = {path: {} for path in small.axes}
    for path, axis in ((path, axis) for path, axes in small.axes.items() for axis in axes):
        new, old = source[small.axes[path][axis]], graph.axes[path][axis]
        (left,) = np.nonzero(graphs.along(stays, old))
        if len(left) != len(new):
            raise ValueError(f"{path} would have {len(left)} places for {len(new)} units")
        index[path][axis] = np.empty(len(new), int)
        # several places of one unit, one for each pixel before a flatten, keep their order
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
    wiring, off = [], {}  # `off`: units that only another group keeps
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
    """Unit of the small net -> unit of the large net.

    Units are matched by the axes that index them; units with the same axes are matched in order.
    Padding may change the order between such sets: in the small net, channels from an earlier stage
    come first.

    Raises:
      ValueError: the small net's units have other axes.
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
    """Axes -> the units that exactly these axes index, in order."""
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
