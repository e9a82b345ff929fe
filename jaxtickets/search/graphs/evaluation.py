"""A graph evaluated with one weight for all connections, as a compiled program of its genome.

A genome becomes a list of instructions, in the order of its connections: each adds up to `FAN_IN`
earlier nodes to a node's sum, and a node's last one applies its activation to `w` times the sum.
The inputs' part of all sums is one matrix product, which doesn't depend on w. A loop runs the
instructions that there are, so that the time grows with the connections and not with the padding.

Measured for 800 connections, half of them from inputs, 128 hidden nodes, 1,000 images and six
weights on one CPU core that had other work: 4 ms with an instruction a connection, 2 to 4 with
`FAN_IN` of 2 to 4, and about 30 with a matrix product over all earlier nodes for each node.

Write for one graph; `runs.batch` or `jax.vmap` make it one program for a population.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.graphs.activations import ACTIVATIONS
from jaxtickets.search.graphs.genome import Genome, Sizes, used
from jaxtickets.shape_checks import check_array
from jaxtickets.types import Array

FAN_IN = 4
"""The most nodes that an instruction reads."""
SUM_ONLY = len(ACTIVATIONS)
"""The operation of an instruction that isn't its node's last."""


class Program(NamedTuple):
    """The instructions of a graph; `c` is the genome's room for connections.

    Attributes:
      direct: float32`[rows, inputs + 1]`: 1 where an input, or the bias, leads to a node.
      row: int32`[c]`: the node whose sum is added to.
      reads: int32`[c, FAN_IN]`: the rows that are added; `rows` where there is none.
      first: bool`[c]`: whether it is the node's first.
      operation: int32`[c]`: a place in `ACTIVATIONS`, or `SUM_ONLY`.
      length: int32 scalar: the number of instructions; the rest is padding.
    """

    direct: Array
    row: Array
    reads: Array
    first: Array
    operation: Array
    length: Array


def compile_graph(genome: Genome, sizes: Sizes) -> Program:
    """The program of a genome. Traceable: its shapes are those of the genome."""
    room, rows = genome.source.shape[0], genome.activation.shape[0]
    there = used(genome)
    inner = there & genome.enabled & (genome.source > sizes.inputs)
    outer = there & genome.enabled & (genome.source <= sizes.inputs)
    changes = genome.target[1:] != genome.target[:-1]
    opens = jnp.concatenate([jnp.ones(1, bool), changes]) & there
    last = jnp.arange(room) == genome.connections - 1
    closes = (jnp.concatenate([changes, jnp.ones(1, bool)]) | last) & there

    upto = jnp.cumsum(inner)
    earlier = jax.lax.cummax(jnp.where(opens, upto - inner, 0))
    place = upto - 1 - earlier  # among the nodes that the target reads
    starts = opens | (inner & (place > 0) & (place % FAN_IN == 0))
    number = jnp.cumsum(starts) - 1

    def scattered(where: Array, values: Array, start: Array) -> Array:
        return start.at[jnp.where(where, number, room)].set(values, mode="drop")

    column = jnp.where(inner, place % FAN_IN, 0)
    none = jnp.full((room, FAN_IN), rows, jnp.int32)
    reads = none.at[jnp.where(inner, number, room), column].set(
        genome.source - sizes.inputs - 1, mode="drop"
    )
    direct = jnp.zeros((rows, sizes.inputs + 1))
    column = jnp.where(outer, genome.source, sizes.inputs + 1)
    return Program(
        direct=direct.at[genome.target, column].set(1.0, mode="drop"),
        row=scattered(starts, genome.target, jnp.zeros(room, jnp.int32)),
        reads=reads,
        first=scattered(opens, opens, jnp.zeros(room, bool)),
        operation=scattered(
            closes, genome.activation[genome.target], jnp.full(room, SUM_ONLY, jnp.int32)
        ),
        length=number[-1] + 1,
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
    """
    check_array("the images of a graph", images, ("n", sizes.inputs), float)
    check_array("the shared weights", weights, ("weights",), float)
    program = compile_graph(genome, sizes)
    ones = jnp.ones((images.shape[0], 1))
    direct = program.direct @ jnp.concatenate([images, ones], axis=1).T
    rows = direct.shape[0]
    operations = [
        *(lambda total, f=f.apply: f(weights[:, None] * total) for f in ACTIVATIONS),
        lambda total: total,
    ]

    def instruction(i: Array, values: Array) -> Array:
        row = program.row[i]
        begun = jnp.where(program.first[i], direct[row][None], values[row])
        total = sum((values[program.reads[i, k]] for k in range(FAN_IN)), begun)
        return values.at[row].set(jax.lax.switch(program.operation[i], operations, total))

    # the last row stays zero, for instructions that read fewer nodes
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
    """
    logits = outputs(genome, images, weights, sizes)
    right = jnp.take_along_axis(logits, labels[None, :, None], axis=2)[..., 0]
    likelihood = right - jax.nn.logsumexp(logits, axis=2)
    hits = jnp.argmax(logits, axis=2) == labels[None]
    return jnp.mean(likelihood, axis=1), jnp.mean(hits, axis=1)
