"""Connectivity of a mask: the weights through which a signal can pass from input to output.

A kept weight is effective if a path of kept weights leads from the input through it to the output;
biases are ignored. Vysogorets and Kempe, "Connectivity matters: neural network pruning through the
lens of effective sparsity", 2023.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets import masks
from jaxtickets.compress.graph import Graph
from jaxtickets.compress.used_units import used_units
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array, Mask, Prunable, Wiring


class Shape(NamedTuple):
    """The connectivity of a mask.

    Attributes:
      effective: path -> int32 scalar, the number of kept weights on a path from the input to the
        output.
      dead_units: group -> int32 scalar, the number of units on no such path.
      dead_inputs: int32 scalar, the number of inputs of the first layer (pixels of a dense layer,
        channels of a convolution) from which no such path starts.
    """

    effective: dict[str, jax.Array]
    dead_units: dict[str, jax.Array]
    dead_inputs: jax.Array


def shape(mask: Mask, wiring: Wiring, prunable: Prunable) -> Shape:
    """The connectivity of a mask, for a net whose groups of units are in forward order.

    Args:
      mask: the mask over the parameters.
      wiring: the net's groups, each after those that its producers read.
      prunable: the leaves that are counted.

    Raises:
      ValueError: the wiring has other places of units than layers that compute and read them; see
        `of_graph` for such a net.

    >>> from jaxtickets.types import Feed, Units
    >>> wiring = (Units("fc1", 2, ("fc1",), norms=(), consumers=(Feed("out", 1),)),)
    >>> mask = {"fc1": {"kernel": np.array([[True, True], [True, False]])}}
    >>> mask["out"] = {"kernel": np.array([[False], [True]])}
    >>> found = shape(mask, wiring, ("fc1/kernel", "out/kernel"))
    >>> {path: int(kept) for path, kept in found.effective.items()}
    {'fc1/kernel': 1, 'out/kernel': 1}
    >>> int(found.dead_units["fc1"]), int(found.dead_inputs)
    (1, 1)
    """
    for group in wiring:
        if group.spans or not group.producers or not group.consumers:
            raise ValueError(f"paths can't be followed through {group.name}: see of_graph")
    links = _links(mask, wiring)
    first = wiring[0].producers[0]
    into: dict[str, Array] = {first: jnp.ones(links[first].shape[0], bool)}
    for group in wiring:
        reached = jnp.stack([_forward(links[p], into[p]) for p in group.producers]).any(0)
        for layer, repeat in group.consumers:
            into[layer] = jnp.tile(reached, repeat)
    last = wiring[-1].consumers[0].layer
    out_of: dict[str, Array] = {last: jnp.ones(links[last].shape[1], bool)}
    dead_units = {}
    for group in reversed(wiring):
        read = [
            _forward(links[layer].T, out_of[layer]).reshape(repeat, group.size).any(0)
            for layer, repeat in group.consumers
        ]
        useful = jnp.stack(read).any(0)
        reached = jnp.stack([_forward(links[p], into[p]) for p in group.producers]).any(0)
        dead_units[group.name] = jnp.sum(~(useful & reached), dtype=jnp.int32)
        out_of |= dict.fromkeys(group.producers, useful)
    effective = {}
    for path, kept in zip(prunable, masks.pick(mask, prunable), strict=True):
        layer = path.removesuffix("/kernel")
        on_path = into[layer][:, None] & out_of[layer][None]
        on_path = kept & jnp.broadcast_to(on_path, kept.shape)
        effective[path] = jnp.sum(on_path, dtype=jnp.int32)
    begins = _forward(links[first].T, out_of[first])
    names = [group.name for group in wiring]
    return Shape(
        effective,
        {name: dead_units[name] for name in names},
        jnp.sum(~begins, dtype=jnp.int32),
    )


def of_graph(mask: Mask, graph: Graph, prunable: Prunable) -> Shape:
    """The connectivity of a mask, for a net of any form; not traced.

    A leaf whose axes aren't known to compute or to read units, such as an embedding or a plain
    matrix without a layer's name, does both: its units count as on a path. So does a unit of a
    recurrent net that only feeds itself.

    Args:
      mask: the mask over the parameters.
      graph: the net's channel graph.
      prunable: the leaves that are counted.

    >>> from jaxtickets.compress import graph
    >>> from jaxtickets.types import Model
    >>> params = {"fc1": {"kernel": jnp.ones((2, 2))}, "out": {"kernel": jnp.ones((2, 1))}}
    >>> def apply(params, stats, x, *_):
    ...     return jnp.tanh(x @ params["fc1"]["kernel"]) @ params["out"]["kernel"], stats
    >>> traced = graph.trace(Model(lambda key: (params, {}), apply), (2,))
    >>> mask = {"fc1": {"kernel": jnp.array([[True, True], [True, False]])}}
    >>> mask["out"] = {"kernel": jnp.array([[False], [True]])}
    >>> found = of_graph(mask, traced, ("fc1/kernel", "out/kernel"))
    >>> {path: int(kept) for path, kept in found.effective.items()}
    {'fc1/kernel': 1, 'out/kernel': 1}
    >>> int(found.dead_units["fc1"]), int(found.dead_inputs)
    (1, 1)
    """
    units = used_units(mask, graph, biases=False)
    left = jax.tree.map(jnp.logical_and, mask, masks.expand(units, graph.wiring, mask))
    fed = {layer for group in graph.wiring for layer, _ in group.consumers}
    fed |= {span.path.rpartition("/")[0] for group in graph.wiring for span in group.spans}
    dead_inputs = jnp.int32(0)
    for path, kept in zip(prunable, masks.pick(left, prunable), strict=True):
        if path.rpartition("/")[0] not in fed:
            axes = tuple(i for i in range(kept.ndim) if i != kept.ndim - 2)
            dead_inputs += jnp.sum(~kept.any(axis=axes), dtype=jnp.int32)
    return Shape(
        masks.counts(left, prunable),
        {name: jnp.sum(~jnp.asarray(used), dtype=jnp.int32) for name, used in units.items()},
        dead_inputs,
    )


def _links(mask: Mask, wiring: Wiring) -> dict[str, Array]:
    """Layer -> bool`[inputs, units]`: whether a kept weight links an input to a unit."""
    layers = {p for g in wiring for p in g.producers} | {
        c.layer for g in wiring for c in g.consumers
    }
    kernels = {layer: masks.pick(mask, (f"{layer}/kernel",))[0] for layer in layers}
    for layer, kernel in kernels.items():
        check_array(f"the mask of {layer}/kernel", kernel, jnp.shape(kernel), bool)
    return {layer: jnp.any(k, axis=tuple(range(k.ndim - 2))) for layer, k in kernels.items()}


def _forward(links: Array, alive: Array) -> Array:
    """bool`[units]`: whether a unit is linked to an alive input."""
    return jnp.any(links & alive[:, None], axis=0)
