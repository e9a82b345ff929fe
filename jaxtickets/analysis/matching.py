"""Matched units: the order of one net's units in which they do what another net's units do.

A net computes the same if the units of a layer change places, so two nets that were trained from
different initialisations may have learnt the same units in different places. Li et al., "Convergent
learning", 2016, section 3.2, match units one to one by the correlation of their outputs; Ainsworth
et al., "Git re-basin", 2023, section 3.1, permute whole nets so, and Adnan et al., "Sparse training
from random initialization", 2025, masks.

Each group of units is matched alone, so no order of the layers matters. Groups that share units
with another group, as where channels are padded with zeros, keep their order.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import masks
from jaxtickets.compress.graph import Graph
from jaxtickets.types import Array, PyTree, Ticket, Units

Permutations = Mapping[str, np.ndarray]
"""`{group: int[units]}`: the unit that comes to each place; absent groups keep their order."""


def matchable(graph: Graph) -> tuple[Units, ...]:
    """The groups of layers' units that share none with another group, in forward order.

    Raises:
      ValueError: there is none.

    >>> from jaxtickets.compress import graph
    >>> from jaxtickets.types import Model
    >>> params = {"fc1": {"kernel": jnp.ones((2, 3))}, "out": {"kernel": jnp.ones((3, 1))}}
    >>> def apply(params, stats, x, *_):
    ...     return jnp.tanh(x @ params["fc1"]["kernel"]) @ params["out"]["kernel"], stats
    >>> traced = graph.trace(Model(lambda key: (params, {}), apply), (2,))
    >>> [(group.name, group.size) for group in matchable(traced)]
    [('fc1', 3)]
    """
    found = []
    for group in graph.wiring:
        others = [places for name, places in graph.units.items() if name != group.name]
        if not group.spans and not (
            others and np.isin(graph.units[group.name], np.concatenate(others)).any()
        ):
            found.append(group)
    if not found:
        raise ValueError("no layer's units can change places: other layers share all of them")
    return tuple(found)


@jax.jit
def correlations(first: Array, second: Array) -> jax.Array:
    """float`[units, units]`: Pearson's correlation of the outputs of all pairs of units.

    Args:
      first, second: float`[examples, units]`, outputs of two nets' units for the same examples.
        Units with constant outputs have the correlation 0 with all.

    >>> first = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    >>> correlations(first, -first).round(3).tolist()
    [[-1.0, 0.0], [0.0, 0.0]]
    """

    def scaled(outputs: Array) -> jax.Array:
        away = outputs - jnp.mean(outputs, 0, keepdims=True)
        length = jnp.linalg.norm(away, axis=0, keepdims=True)
        return jnp.where(length > 0, away / jnp.where(length > 0, length, 1), 0)

    return scaled(first).T @ scaled(second)


def assignment(similarity: Array) -> np.ndarray:
    """int`[units]`: for each unit of the second net its partner in the first, one to one.

    The partners have the largest sum of similarities, by the Hungarian method on the host.

    Args:
      similarity: float`[units, units]` of units of the first net and of the second.

    >>> assignment(np.array([[0.1, 0.9, 0.2], [0.8, 0.7, 0.1], [0.3, 0.2, 0.6]])).tolist()
    [1, 0, 2]
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.asarray(similarity, float), maximize=True)
    partner = np.empty(len(rows), int)
    partner[columns] = rows
    return partner


def match(first: Mapping[str, Array], second: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """The permutations that bring the first net's units to the places of their partners.

    Args:
      first, second: `{group: float[examples, units]}`, the outputs of two nets' units for the same
        images (`compress.unit_outputs`), of groups of `matchable`.

    >>> first = np.array([[0.0, 3.0], [1.0, 0.0], [2.0, 2.0]])
    >>> match({"fc1": first}, {"fc1": first[:, ::-1]})["fc1"].tolist()
    [1, 0]
    """
    return {name: assignment(correlations(first[name], second[name])) for name in first}


def permute(ticket: Ticket, permutations: Permutations, graph: Graph) -> Ticket:
    """The ticket with units in other places; masked or not, its net computes the same.

    Unit `permutations[group][j]` comes to place j: in the last axes of the leaves of the layers
    that compute it, and in the input axes of those that read it, at each pixel after a flatten.

    Args:
      ticket: parameters, statistics and mask, unbatched.
      permutations: of groups of `matchable`.
      graph: the net's channel graph.

    Raises:
      ValueError: a group can't be permuted, or its entry is no permutation of its units.

    >>> from jaxtickets.compress import graph
    >>> from jaxtickets.types import Model
    >>> params = {"fc1": {"kernel": jnp.array([[1.0, 2.0]])}, "out": {"kernel": jnp.ones((2, 1))}}
    >>> def apply(params, stats, x, *_):
    ...     return jnp.tanh(x @ params["fc1"]["kernel"]) @ params["out"]["kernel"], stats
    >>> traced = graph.trace(Model(lambda key: (params, {}), apply), (1,))
    >>> ticket = Ticket(params, {}, masks.ones(params), 0)
    >>> permute(ticket, {"fc1": np.array([1, 0])}, traced).params["fc1"]["kernel"].tolist()
    [[2.0, 1.0]]
    """
    sizes = {group.name: group.size for group in matchable(graph)}
    number = 1 + max(int(units.max()) for axes in graph.axes.values() for units in axes.values())
    comes = np.arange(number)  # unit -> the unit that comes to its place
    for name, order in permutations.items():
        if name not in sizes:
            raise ValueError(f"units of '{name}' can't change places, those of {[*sizes]} can")
        if not np.array_equal(np.sort(order), np.arange(sizes[name])):
            raise ValueError(f"no permutation of the {sizes[name]} units of {name}: {order}")
        comes[graph.units[name]] = graph.units[name][np.asarray(order)]

    def moved(kind: str, tree: PyTree) -> PyTree:
        leaves = []
        for path, leaf in zip(masks.paths(tree), jax.tree.leaves(tree), strict=True):
            for axis, units in graph.axes[f"{kind}/{path}"].items():
                leaf = np.asarray(leaf).take(_places(units, comes), axis)
            leaves.append(jnp.asarray(leaf))
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    return ticket._replace(
        params=moved("params", ticket.params),
        stats=moved("batch_stats", ticket.stats),
        mask=moved("params", ticket.mask),
    )


def _places(units: np.ndarray, comes: np.ndarray) -> np.ndarray:
    """For each place on an axis, the old place of what comes there.

    Several places of one unit, one for each pixel before a flatten, keep their order.
    """
    places = np.empty(len(units), int)
    places[np.argsort(comes[units], kind="stable")] = np.argsort(units, kind="stable")
    return places
