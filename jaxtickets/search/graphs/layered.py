"""One graph with a weight of its own for each connection, differentiable, for training.

The graph's structure is fixed: its nodes are put into layers, and a layer is one matrix product.
Nodes that lead to no output are left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxtickets.search.graphs.activations import ACTIVATIONS
from jaxtickets.search.graphs.genome import Genome, Sizes
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array


class Structure(NamedTuple):
    """A graph on the host, without padding and without what leads to no output.

    Attributes:
      source: int`[c]`: the numbers of the nodes that connections read.
      target: int`[c]`: the rows of the nodes that they lead to.
      activation: int`[rows]`: by row, a place in `ACTIVATIONS`.
      layer: int`[rows]`: by row, one more than the highest of those that the node reads, inputs
        being 0; outputs share the last layer; -1 for nodes that are left out.
      sizes: the numbers of inputs and outputs.
    """

    source: np.ndarray
    target: np.ndarray
    activation: np.ndarray
    layer: np.ndarray
    sizes: Sizes


def structure(genome: Genome, sizes: Sizes) -> Structure:
    """The structure of one genome, which is not traced.

    >>> from jaxtickets.search.graphs.genome import Capacity, first_population
    >>> sizes = Sizes(inputs=2, outputs=1)
    >>> population = first_population(jax.random.key(0), sizes, Capacity(1, 4), 2, share=1.0)
    >>> graph = structure(jax.tree.map(lambda leaf: leaf[0], population), sizes)
    >>> graph.source.tolist(), graph.target.tolist(), graph.layer.tolist()
    ([0, 1, 2], [0, 0, 0], [1])
    """
    genome = Genome(*map(np.asarray, genome))
    there = np.arange(genome.source.size) < genome.connections
    source, target = (x[there & genome.enabled] for x in (genome.source, genome.target))
    rows = sizes.outputs + int(genome.hidden)
    reads = source - sizes.inputs - 1  # rows; below 0 for inputs
    order = sizes.outputs + np.argsort(genome.rank[sizes.outputs : rows])

    needed = np.zeros(rows, bool)
    needed[: sizes.outputs] = True
    for row in (*range(sizes.outputs), *order[::-1]):
        mine = reads[target == row]
        needed[mine[mine >= 0]] |= needed[row]
    layer = np.zeros(rows, int)
    for row in (*order, *range(sizes.outputs)):
        mine = reads[target == row]
        layer[row] = 1 + max((layer[mine[mine >= 0]]), default=0)
    layer[: sizes.outputs] = layer[: sizes.outputs].max()
    layer[~needed] = -1
    kept = needed[target]
    return Structure(source[kept], target[kept], genome.activation[:rows], layer, sizes)


def apply(graph: Structure) -> Callable[[Array, Array], Array]:
    """The function `(weights float32[c], images float32[n, inputs]) -> float32[n, outputs]`.

        value(node) = activation(sum of weight * value over its connections)

    Raises:
      ValueError: when called with other shapes.

    >>> inputs_and_bias, output = np.array([0, 1, 2]), np.array([0, 0, 0])
    >>> graph = Structure(inputs_and_bias, output, np.array([0]), np.array([1]), Sizes(2, 1))
    >>> weights, images = jnp.array([1.0, 2.0, 3.0]), jnp.array([[10.0, 100.0]])
    >>> apply(graph)(weights, images).tolist()
    [[213.0]]
    """
    sizes = graph.sizes
    last = graph.layer[: sizes.outputs].max()
    layers = [np.flatnonzero(graph.layer == k) for k in range(1, last + 1)]
    numbers = np.concatenate(
        [np.arange(sizes.inputs + 1), sizes.inputs + 1 + np.concatenate(layers)]
    )
    column = np.zeros(numbers.max() + 1, int)
    column[numbers] = np.arange(numbers.size)

    def call(weights: Array, images: Array) -> Array:
        check_array("the weights of a graph", weights, (graph.source.size,), float)
        check_array("the images of a graph", images, ("n", sizes.inputs), float)
        values = jnp.concatenate([images, jnp.ones((images.shape[0], 1))], axis=1)
        for rows in layers:
            place = np.zeros(graph.layer.size, int)
            place[rows] = np.arange(rows.size)
            mine = np.flatnonzero(np.isin(graph.target, rows))
            where = column[graph.source[mine]], place[graph.target[mine]]
            matrix = jnp.zeros((values.shape[1], rows.size)).at[where].set(weights[mine])
            totals = values @ matrix
            layer = jnp.zeros_like(totals)
            for number in np.unique(graph.activation[rows]):
                those = np.flatnonzero(graph.activation[rows] == number)
                made = ACTIVATIONS[number].apply(totals[:, those])
                layer = layer.at[:, those].set(made)
            values = jnp.concatenate([values, layer], axis=1)
        return values[:, values.shape[1] - layers[-1].size :][:, : sizes.outputs]

    return call
