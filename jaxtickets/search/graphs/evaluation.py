"""A graph evaluated with one weight for all connections, as a compiled program of its genome.

A genome becomes a list of instructions, in the order of its connections: each adds a node to
another one's sum, and a node's last one applies its activation to `w` times the sum. The inputs'
part of all sums is one matrix product, which doesn't depend on w. A loop runs the instructions
that there are, so that the time grows with the connections and not with the padding.

Measured on a CPU core for 128 hidden nodes, 800 connections, half of them from inputs, and six
weights: 0.5 ms for 250 images and 2.7 ms for 1,000. With a matrix product over all earlier nodes in
place of each node's connections that is 2.2 and 20 ms; with up to 2, 4 or 8 connections in an
instruction it is the same within the noise.

Write for one graph; `runs.batch` or `jax.vmap` make it one program for a population.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.graphs.activations import ACTIVATIONS
from jaxtickets.search.graphs.genome import Genome, Sizes, used
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array

SUM_ONLY = len(ACTIVATIONS)
"""The operation of an instruction that isn't its node's last."""


class Program(NamedTuple):
    """The instructions of a graph; `c` is the genome's room for connections.

    Attributes:
      direct: float32`[rows, inputs + 1]`: 1 where an input, or the bias, leads to a node.
      row: int32`[c]`: the node whose sum is added to.
      read: int32`[c]`: the row that is added; `rows` for nothing.
      operation: int32`[c]`: a place in `ACTIVATIONS`, or `SUM_ONLY`.
      length: int32 scalar: the number of instructions; the rest is padding.
    """

    direct: Array
    row: Array
    read: Array
    operation: Array
    length: Array


def _compile_graph(genome: Genome, sizes: Sizes) -> Program:
    """The program of a genome. Traceable: its shapes are those of the genome."""
    room, rows = genome.source.shape[0], genome.activation.shape[0]
    there = used(genome)
    inner = there & genome.enabled & (genome.source > sizes.inputs)
    outer = there & genome.enabled & (genome.source <= sizes.inputs)
    changes = jnp.concatenate([genome.target[1:] != genome.target[:-1], jnp.ones(1, bool)])
    last = there & (changes | (jnp.arange(room) == genome.connections - 1))
    needed = inner | last
    place = jnp.where(needed, jnp.cumsum(needed) - 1, room)

    def instructions(values: Array, padding: int) -> Array:
        return jnp.full(room, padding, jnp.int32).at[place].set(values, mode="drop")

    column = jnp.where(outer, genome.source, sizes.inputs + 1)
    direct = jnp.zeros((rows, sizes.inputs + 1))
    return Program(
        direct=direct.at[genome.target, column].set(1.0, mode="drop"),
        row=instructions(genome.target, rows),
        read=instructions(jnp.where(inner, genome.source - sizes.inputs - 1, rows), rows),
        operation=instructions(
            jnp.where(last, genome.activation[genome.target], SUM_ONLY), SUM_ONLY
        ),
        length=jnp.sum(needed),
    )


def outputs(genome: Genome, images: Array, weights: Array, sizes: Sizes) -> Array:
    """The outputs of a graph with each shared weight.

        value(node) = activation(w * (sum of the values that its enabled connections read))

    An output without connections is 0.

    Args:
      genome: of one graph.
      images: float32`[n, inputs]`.
      weights: float32`[w]`.
      sizes: static.

    Returns:
      float32`[w, n, outputs]`.

    Raises:
      ValueError: images of another size.

    >>> from jaxtickets.search.graphs.genome import Capacity, first_population
    >>> sizes, images = Sizes(inputs=2, outputs=1), jnp.array([[1.0, 2.0]])
    >>> population = first_population(jax.random.key(0), sizes, Capacity(1, 4), 2, share=1.0)
    >>> graph = jax.tree.map(lambda leaf: leaf[0], population)
    >>> weights = jnp.array([0.5, 2.0])
    >>> jax.jit(outputs, static_argnums=3)(graph, images, weights, sizes).tolist()  # w (1 + 2 + 1)
    [[[2.0]], [[8.0]]]
    """
    check_array("the images of a graph", images, ("n", sizes.inputs), float)
    check_array("the shared weights", weights, ("weights",), float)
    program = _compile_graph(genome, sizes)
    ones = jnp.ones((images.shape[0], 1))
    direct = program.direct @ jnp.concatenate([images, ones], axis=1).T
    rows = direct.shape[0]
    operations = [
        *(lambda total, f=f.apply: f(weights[:, None] * total) for f in ACTIVATIONS),
        lambda total: total,
    ]

    first = jnp.concatenate([jnp.ones(1, bool), program.row[1:] != program.row[:-1]])

    def instruction(i: Array, values: Array) -> Array:
        row = program.row[i]
        begun = jnp.where(first[i], direct[row][None], values[row])
        total = begun + values[program.read[i]]
        return values.at[row].set(jax.lax.switch(program.operation[i], operations, total))

    # the last row stays zero, for instructions that add nothing
    values = jnp.zeros((rows + 1, weights.shape[0], images.shape[0]))
    values = jax.lax.fori_loop(0, program.length, instruction, values)
    return jnp.transpose(values[: sizes.outputs], (1, 2, 0))


def score(
    genome: Genome, images: Array, labels: Array, weights: Array, sizes: Sizes
) -> tuple[Array, Array]:
    """The reward and the accuracy of a graph with each shared weight.

    The reward is the mean log likelihood of the labels under the softmax of the outputs.

    Args:
      genome: of one graph.
      images: float32`[n, inputs]`.
      labels: int32`[n]`.
      weights: float32`[w]`.
      sizes: static.

    Returns:
      Rewards float32`[w]` and accuracies float32`[w]`.

    Raises:
      ValueError: images of another size.

    >>> from jaxtickets.search.graphs.genome import Capacity, first_population
    >>> sizes = Sizes(inputs=2, outputs=2)
    >>> population = first_population(jax.random.key(0), sizes, Capacity(1, 6), 2, share=1.0)
    >>> graph = jax.tree.map(lambda leaf: leaf[0], population)
    >>> images, labels, weights = jnp.array([[1.0, 2.0]]), jnp.array([0]), jnp.array([0.5, 2.0])
    >>> compiled = jax.jit(score, static_argnums=4)
    >>> rewards, accuracies = compiled(graph, images, labels, weights, sizes)
    >>> [round(reward, 3) for reward in rewards.tolist()], accuracies.tolist()  # equal outputs
    ([-0.693, -0.693], [1.0, 1.0])
    """
    logits = outputs(genome, images, weights, sizes)
    right = jnp.take_along_axis(logits, labels[None, :, None], axis=2)[..., 0]
    likelihood = right - jax.nn.logsumexp(logits, axis=2)
    hits = jnp.argmax(logits, axis=2) == labels[None]
    return jnp.mean(likelihood, axis=1), jnp.mean(hits, axis=1)
