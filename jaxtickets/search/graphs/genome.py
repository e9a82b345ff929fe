"""A graph as arrays of a fixed size: its connections in the order in which they are evaluated.

A node has a number: inputs come first, then the bias (an input that is always 1), the outputs, and
the hidden nodes in the order in which they were added. All nodes but inputs and bias have a *row*,
their number less that of the first output. The connections are sorted by the rank of their
targets, and a connection leads from a lower rank to a higher one, so no graph has a cycle.

All functions take one genome; populations are genomes with a leading axis, by `jax.vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.types import Array, Key


class Sizes(NamedTuple):
    """The numbers of nodes that a graph can't change; static.

    Attributes:
      inputs: without the bias.
      outputs: the number of classes.
    """

    inputs: int
    outputs: int


class Capacity(NamedTuple):
    """The room of a genome; static.

    Attributes:
      hidden: the most hidden nodes.
      connections: the most connections, with those that are disabled.
    """

    hidden: int
    connections: int


class Genome(NamedTuple):
    """A graph. Entries past `connections` and rows past `hidden` are padding.

    Attributes:
      source: int32`[c]`: the number of the node that a connection reads.
      target: int32`[c]`: the row of the node that it leads to.
      enabled: bool`[c]`: whether it is in use.
      activation: int32`[outputs + h]`: by row, a place in `ACTIVATIONS`.
      rank: int32`[outputs + h]`: by row, the node's place in the order of evaluation. Hidden nodes
        have the ranks 0, 1, ..., outputs come after all of them.
      connections, hidden: int32 scalars: how many there are.
    """

    source: Array
    target: Array
    enabled: Array
    activation: Array
    rank: Array
    connections: Array
    hidden: Array


def check(sizes: Sizes, capacity: Capacity, individuals: int, share: float) -> None:
    """Raises ValueError, in one line, if there can be no such first population.

    >>> check(Sizes(2, 1), Capacity(hidden=1, connections=2), individuals=2, share=1.0)
    Traceback (most recent call last):
    ValueError: connections=2: too few, the first graphs have up to 3
    """
    if min(sizes) < 1:
        raise ValueError(f"{sizes.inputs} inputs and {sizes.outputs} outputs: must be 1 or more")
    if individuals < 2:
        raise ValueError(f"population={individuals}: must be 2 or more, to select from")
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: must be above 0 and at most 1")
    pairs = (sizes.inputs + 1) * sizes.outputs
    expected = share * pairs
    likely = min(pairs, expected + 6 * (expected * (1 - share)) ** 0.5)
    if capacity.hidden < 1:
        raise ValueError(f"hidden={capacity.hidden}: must be 1 or more")
    if capacity.connections < likely:
        raise ValueError(
            f"connections={capacity.connections}: too few, the first graphs have up to {likely:.0f}"
        )


def first_population(
    key: Key, sizes: Sizes, capacity: Capacity, individuals: int, share: float
) -> Genome:
    """Graphs without hidden nodes, in which each input-output pair is connected by chance.

    The official code lists all pairs and enables a share of them; here only these are listed.

    Args:
      key: consumed.
      sizes, capacity: static.
      individuals: how many graphs; static.
      share: the probability of each connection, in (0, 1].

    Raises:
      ValueError: see `check`.

    >>> sizes, capacity = Sizes(inputs=2, outputs=1), Capacity(hidden=1, connections=4)
    >>> population = first_population(jax.random.key(0), sizes, capacity, 2, share=1.0)
    >>> population.source[0].tolist(), population.connections.tolist()  # 2 is the bias, and padding
    ([0, 1, 2, 0], [3, 3])
    """
    check(sizes, capacity, individuals, share)

    def one(key: Key) -> Genome:
        pairs = jax.random.bernoulli(key, float(share), (sizes.outputs, sizes.inputs + 1))
        room = capacity.connections
        target, source = jnp.nonzero(pairs, size=room, fill_value=0)
        count = jnp.minimum(pairs.sum(), room)
        rows = sizes.outputs + capacity.hidden
        return Genome(
            source=source.astype(jnp.int32),
            target=target.astype(jnp.int32),
            enabled=jnp.arange(room) < count,
            activation=jnp.zeros(rows, jnp.int32),
            rank=capacity.hidden + jnp.arange(rows),
            connections=count.astype(jnp.int32),
            hidden=jnp.int32(0),
        )

    return jax.vmap(one)(jax.random.split(key, individuals))


def used(genome: Genome) -> Array:
    """bool`[c]`: the connections that are no padding.

    >>> sizes, capacity = Sizes(inputs=2, outputs=1), Capacity(hidden=1, connections=4)
    >>> population = first_population(jax.random.key(0), sizes, capacity, 2, share=1.0)
    >>> used(jax.tree.map(lambda leaf: leaf[0], population)).tolist()
    [True, True, True, False]
    """
    return jnp.arange(genome.source.shape[-1]) < genome.connections


def complexity(genome: Genome) -> Array:
    """int32 scalar: the number of enabled connections.

    >>> sizes, capacity = Sizes(inputs=2, outputs=1), Capacity(hidden=1, connections=4)
    >>> population = first_population(jax.random.key(0), sizes, capacity, 2, share=1.0)
    >>> jax.vmap(complexity)(population).tolist()
    [3, 3]
    """
    return jnp.sum(genome.enabled & used(genome)).astype(jnp.int32)


def resized(genome: Genome, sizes: Sizes, capacity: Capacity) -> Genome:
    """The same graphs with another padding; of one genome or of a population, which must fit.

    Mutations draw the same whatever the padding, so evaluation and mutation may go on with little.

    Args:
      genome: connections and rows are its last axes.
      sizes, capacity: of the result; static.

    >>> sizes, capacity = Sizes(inputs=2, outputs=1), Capacity(hidden=1, connections=4)
    >>> population = first_population(jax.random.key(0), sizes, capacity, 2, share=1.0)
    >>> wider = resized(population, sizes, Capacity(hidden=3, connections=8))
    >>> wider.source.shape, wider.rank.shape, wider.connections.tolist()
    ((2, 8), (2, 4), [3, 3])
    """

    def cut(leaf: Array, size: int) -> Array:
        more = [(0, 0)] * (leaf.ndim - 1) + [(0, max(0, size - leaf.shape[-1]))]
        return jnp.pad(leaf[..., :size], more)

    connections, rows = capacity.connections, sizes.outputs + capacity.hidden
    return genome._replace(
        source=cut(genome.source, connections),
        target=cut(genome.target, connections),
        enabled=cut(genome.enabled, connections),
        activation=cut(genome.activation, rows),
        rank=cut(genome.rank, rows),
    )
