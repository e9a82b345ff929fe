"""The widths of a smaller net, and which width of a net sets which layer's units."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxtickets import nets
from jaxtickets.compress import graph as graphs
from jaxtickets.compress.graph import Graph


def cut_widths(net: nn.Module, graph: Graph, counts: Mapping[str, int]) -> tuple[int, ...]:
    """`net.widths` with the new sizes of the groups.

    To find which width sets which layer, a probe net is built whose widths all differ, except those
    of layers with tied units. The probe keeps the order of the widths, because a padded shortcut
    cannot narrow its stream.

    Args:
      net: a flax module.
      graph: the net's channel graph.
      counts: group -> the number of units that are kept.

    Raises:
      ValueError: the net has no such attribute, or its widths cannot express the new sizes.

    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graphs.trace(net, (2, 2, 1))
    >>> cut_widths(net, traced, {"fc1": 2, "fc2": 3})
    (2, 3)
    """
    widths = getattr(net, "widths", None)
    if not isinstance(widths, tuple) or not all(isinstance(width, int) for width in widths):
        raise ValueError(f"{type(net).__name__} has no `widths`, a tuple of integers, to be cut")
    same, units = _tied_widths(net, graph)
    new: dict[int, int] = {}
    for group in graph.wiring:
        for layer in group.producers:
            if layer not in units:
                if counts[group.name] == group.size:
                    continue
                raise ValueError(f"none of {type(net).__name__}'s widths sets the units of {layer}")
            place = units[layer]
            if new.setdefault(place, counts[group.name]) != counts[group.name]:
                raise ValueError(f"widths[{place}] sets {layer} and others of another size")
    return tuple(new.get(same[place], width) for place, width in enumerate(widths))


def _tied_widths(net: nn.Module, graph: Graph) -> tuple[list[int], dict[str, int]]:
    """For each width, the first width that must equal it; and layer -> the width that sets it.

    A net with all widths different may be impossible, because two layers' units meet. Widths that
    are known to meet are then made equal, until the net can be built.
    """
    widths, layers = net.widths, [one for group in graph.wiring for one in group.producers]
    order = np.argsort(np.argsort(widths, kind="stable"))
    above = 1 + max([*widths, *(group.size for group in graph.wiring)])
    same = list(range(len(widths)))

    def probe(same: list[int]) -> tuple[dict[str, int], Exception | None]:
        """Layer -> the width that sets it, for the layers that could be built."""
        trial = tuple(above + int(order[place]) for place in same)
        sizes, error = _sizes(net.clone(widths=trial), graph, layers)
        return {layer: trial.index(n) for layer, n in sizes.items() if n in trial}, error

    def joined(one: int, other: int) -> list[int]:
        low, high = sorted((same[one], same[other]))
        return [low if place == high else place for place in same]

    units, error = probe(same)
    while error is not None:
        tied = [
            [units[layer] for layer in group.producers if layer in units] for group in graph.wiring
        ]
        found = next(
            (
                (places[0], place)
                for places in tied
                for place in places[1:]
                if same[place] != same[places[0]]
            ),
            None,
        )
        if found:
            same = joined(*found)
            units, error = probe(same)
            continue
        # the layer that could not be built is tied to one that was
        unseen = [place for place in dict.fromkeys(same) if place not in units.values()]
        for one, other in ((a, b) for a in unseen for b in dict.fromkeys(units.values())):
            if widths[one] == widths[other]:
                more, now = probe(joined(one, other))
                if now is None or len(more) > len(units):
                    same, units, error = joined(one, other), more, now
                    break
        else:
            raise ValueError(
                f"{type(net).__name__} can't have other widths: {one_line(error)}"
            ) from error
    return same, units


def _sizes(
    net: nn.Module, graph: Graph, layers: Sequence[str]
) -> tuple[dict[str, int], Exception | None]:
    """Layer -> its number of units, for the layers that the net builds; and any error it raises."""
    made: dict[str, Any] = {}

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        try:
            return call(*args, **kwargs)
        finally:
            if context.module.path == ():
                made.update(jax.tree.map(jnp.shape, context.module.variables.get("params", {})))

    error: Exception | None = None
    with nn.intercept_methods(watch):
        try:
            model = nets.functional(net, graph.image)
            jax.eval_shape(lambda key: model.init(key), jax.random.key(0))  # traced, not recalled
        except Exception as raised:  # any error of a user's net whose widths don't fit
            error = raised
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): shape
        for path, shape in jax.tree.leaves_with_path(made, is_leaf=lambda s: isinstance(s, tuple))
    }
    kernels = {layer: graphs.kernel_of(graph, layer) for layer in layers}
    return {layer: shapes[path][-1] for layer, path in kernels.items() if path in shapes}, error


def one_line(error: Exception) -> str:
    r"""The first paragraph of an exception's message, in one line.

    >>> one_line(ValueError("the widths\ndo not fit\n\nsee the manual"))
    'the widths do not fit'
    """
    return " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
