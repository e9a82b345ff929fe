"""The units that a mask over weights leaves in use, so that the others can be removed.

A mask of groups of weights, such as that of `gates.l0_groups`, cuts the inputs of dense layers,
which are units of the layers before, and filters. `shrink` removes units; this says which.
"""

import jax
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.graph import Graph
from jaxtickets.types import Mask, Units


def used_units(mask: Mask, graph: Graph, biases: bool = True) -> dict[str, np.ndarray]:
    """`{group: bool[units]}`: the units whose removal would change what the masked net computes.

    A unit is out of use if no kept weight reads it, or if its own value is always zero: none of the
    weights that make it is kept, nor its bias, nor scale and shift of a batch norm after it.
    Weights of units out of use do not count as kept, so that what only they read, or only they
    make, is out of use too. The masked net's outputs are those of the net without these units, if
    activations map zero to zero, as ReLU does.

    A group may lose all its units; `shrink` refuses this.

    Args:
      mask: the mask over the parameters.
      graph: the net's channel graph. A unit that groups share is in use if it is made in one of
        them and read in one.
      biases: whether a bias, scale or shift makes a unit; if not, only units on a path of kept
        weights from the input are in use.

    >>> from jaxtickets import nets
    >>> from jaxtickets.compress import graph
    >>> net = nets.make("lenet300_100", widths=(4, 3), classes=2)
    >>> traced = graph.trace(net, (2, 2, 1))
    >>> params, _ = nets.functional(net, (2, 2, 1)).init(jax.random.key(0))
    >>> mask = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params)
    >>> mask["fc2"]["kernel"][3] = False  # nothing reads the last unit of fc1
    >>> used_units(mask, traced)["fc1"].tolist()
    [True, True, True, False]
    """
    mask = jax.tree.map(np.asarray, mask)
    expand = jax.jit(masks.expand, static_argnums=1)
    units = {name: np.ones(len(places), bool) for name, places in graph.units.items()}
    while True:
        left = jax.tree.map(np.logical_and, mask, expand(units, graph.wiring, mask))
        count = 1 + max((int(places.max()) for places in graph.units.values()), default=0)
        read, made = np.zeros(count, bool), np.zeros(count, bool)
        for group in graph.wiring:
            places = graph.units[group.name]
            read[places] |= _read(left, group)
            made[places] |= _made(left, group, biases)
        now = {name: (read & made)[places] for name, places in graph.units.items()}
        if all(np.array_equal(now[name], units[name]) for name in units):
            return units
        units = now


def _read(mask: Mask, group: Units) -> np.ndarray:
    """bool`[units]`: whether a kept weight of a layer that reads the group reads the unit."""
    read = np.zeros(group.size, bool)
    for layer, repeat in group.consumers:
        kernel = np.asarray(masks.kernels(mask, (layer,))[0])
        rows = kernel.any(axis=tuple(i for i in range(kernel.ndim) if i != kernel.ndim - 2))
        read |= rows.reshape(repeat, group.size).any(0)
    return read | _spanned(mask, group)


def _made(mask: Mask, group: Units, biases: bool) -> np.ndarray:
    """bool`[units]`: whether a kept weight, bias, scale or shift makes the unit."""
    by_path = dict(zip(masks.paths(mask), jax.tree.leaves(mask), strict=True))
    leaves = list(masks.kernels(mask, group.producers))
    for layer in group.producers + group.norms if biases else ():
        names = [f"{layer}/{leaf}" if layer else leaf for leaf in ("bias", "scale")]
        leaves += [by_path[name] for name in names if name in by_path]
    columns = [np.any(leaf, axis=tuple(range(np.ndim(leaf) - 1))) for leaf in leaves]
    return np.logical_or.reduce([np.zeros(group.size, bool), *columns]) | _spanned(mask, group)


def _spanned(mask: Mask, group: Units) -> np.ndarray:
    """bool`[units]`: whether a weight is kept at the unit's other places, to read or make it."""
    by_path = dict(zip(masks.paths(mask), jax.tree.leaves(mask), strict=True))
    found = np.zeros(group.size, bool)
    for path, axis, units in group.spans:
        places = np.moveaxis(np.asarray(by_path[path]), axis, 0)
        kept = places.reshape(len(units), -1).any(1)
        found[np.array(units)[kept & (np.array(units) >= 0)]] = True
    return found
