"""Fusion of a ticket's units: how many a layer, which, and how."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.fusion.base import How, Partners, Which
from jaxtickets.compress.fusion.layers import EPSILON, combine, combined_mask, fusible, layer_of
from jaxtickets.compress.fusion.pairs import number_above
from jaxtickets.compress.graph import Graph
from jaxtickets.types import Array, Key, Params, Stats, Ticket

LEAST_COSINE = 0.45
"""The smallest cosine of fused units in Kim et al., 2020, for LeNet-300-100; 0.1 for VGG-16."""


class Fused(NamedTuple):
    """A net whose units are fused, before the removed ones are cut off by `compress.shrink`.

    Attributes:
      ticket: the whole ticket; what removed units compute is read by none.
      units: `{group: bool[units]}`, the kept units.
      partners: group -> where its units went.
    """

    ticket: Ticket
    units: dict[str, np.ndarray]
    partners: dict[str, Partners]


def by_share(graph: Graph, cut: float) -> dict[str, int]:
    """`{group: units that stay}`: all but the share `cut` of each layer, half to even.

    Raises:
      ValueError: the share is not between 0 and 1; or a layer would lose all its units, or none
        loses any.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> by_share(traced, 0.25)
    {'fc1': 3, 'fc2': 2}
    """
    if not 0 < cut < 1:
        raise ValueError(f"a share of {cut:g} of the units can't be cut: it is between 0 and 1")
    groups = fusible(graph)
    counts = {group.name: round(group.size * (1 - cut)) for group in groups}
    for group in groups:
        if counts[group.name] == 0:
            raise ValueError(f"a cut of {cut:g} leaves none of the {group.size} of {group.name}")
    if all(counts[group.name] == group.size for group in groups):
        raise ValueError(f"a cut of {cut:g} removes no unit of {', '.join(counts)}")
    return counts


def by_cosine(
    graph: Graph, params: Params, stats: Stats, least_cosine: float, epsilon: float = EPSILON
) -> dict[str, int]:
    """`{group: units that stay}`: as many as are left if all pairs are fused that are similar.

    Args:
      graph: the net's channel graph.
      params, stats: its parameters and statistics.
      least_cosine: pairs are fused, the most similar first, while their cosine is that large.
      epsilon: what batch norms add to the variance.

    Raises:
      ValueError: the cosine is outside (-1, 1].

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> params, _ = nets.functional(net, (2, 2, 1)).init(jax.random.key(0))
    >>> params = jax.tree.map(jnp.ones_like, params)
    >>> by_cosine(traced, params, {}, least_cosine=0.9)  # all units of a layer are the same
    {'fc1': 1, 'fc2': 1}
    """
    if not -1 < least_cosine <= 1:
        raise ValueError(f"a cosine of {least_cosine:g} is outside (-1, 1]")
    return {
        group.name: number_above(layer_of(params, stats, group, epsilon=epsilon), least_cosine)
        for group in fusible(graph)
    }


def fuse(
    key: Key,
    ticket: Ticket,
    graph: Graph,
    keep: Mapping[str, int],
    which: Which,
    how: How,
    least_cosine: float = LEAST_COSINE,
    grams: Mapping[str, Array] | None = None,
    epsilon: float = EPSILON,
    partners: Mapping[str, Partners] | None = None,
) -> Fused:
    """Fuses the units of each layer until `keep` of them are left.

    All layers are compared as they are in the whole net, as in Kim et al., 2020. Their weights then
    change one layer after the other; the order has no effect.

    Args:
      key: consumed by rules that draw.
      ticket: the net's ticket, unbatched. Masked weights count as zero; a weight that is a sum is
        kept by the new mask if one of its parts was.
      graph: the net's channel graph.
      keep: `{group: units that stay}` for groups of `fusible`; an absent group stays whole.
      which: says which units are fused.
      how: says what becomes of their weights.
      least_cosine: the smallest cosine of units that are fused; a removed unit without a partner
        that similar is lost.
      grams: of `layers.grams`, if a rule needs data.
      epsilon: what batch norms add to the variance.
      partners: where the units go, from a call with the same arguments but `how`, so that `which`
        isn't asked again.

    Raises:
      ValueError: in one line: a group isn't there or can't be fused, a count is out of range, or a
        rule needs data and there are none.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> from jaxtickets.compress.fusion import HOW, WHICH
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> params, _ = nets.functional(net, (2, 2, 1)).init(jax.random.key(0))
    >>> params["fc1"]["kernel"] = np.array([[1, 2, 0, 0], [0, 0, 1, 2], [0] * 4, [0] * 4], "f")
    >>> params["fc2"]["kernel"] = np.ones((4, 3), "f")
    >>> ticket, key = Ticket(params, {}, masks.ones(params), 0), jax.random.key(0)
    >>> fused = fuse(key, ticket, traced, {"fc1": 2}, WHICH["l2"], HOW["merge"])
    >>> fused.units["fc1"].tolist(), fused.ticket.params["fc2"]["kernel"][:, 0].tolist()
    ([False, True, False, True], [0.0, 1.5, 0.0, 1.5])
    """
    groups = {group.name: group for group in fusible(graph)}
    for name, count in keep.items():
        if name not in groups:
            raise ValueError(f"no units '{name}' to fuse; there are {', '.join(groups)}")
        if not 1 <= count <= groups[name].size:
            raise ValueError(f"{count} units of {name}: it has {groups[name].size}, 1 must stay")
    if (which.needs_data or how.needs_data) and grams is None:
        raise ValueError("the rule needs the units' outputs on data: give grams")
    masks.check_mask(ticket.mask, ticket.params)
    params: Params = masks.apply(ticket.mask, ticket.params)
    first, stats, mask = params, ticket.stats, ticket.mask
    found = dict[str, Partners]()
    keys = jax.random.split(key, len(groups))
    for one, (name, group) in zip(keys, groups.items(), strict=True):
        if keep.get(name, group.size) == group.size:
            continue
        gram = None if grams is None else grams[name]
        layer = layer_of(first, ticket.stats, group, gram, epsilon)
        if partners is not None:
            found[name] = partners[name]
        else:
            found[name] = which.choose(one, layer, keep[name], least_cosine)
        made = how.combine(layer, found[name])
        params, stats = combine(params, stats, group, made, epsilon)
        mask = combined_mask(mask, params, group, made)
    units = {name: one.kept for name, one in found.items()}
    return Fused(ticket._replace(params=params, stats=stats, mask=mask), units, found)
