"""Random changes of one graph: a node, a connection, an activation. A graph stays free of cycles.

Each mutation is `(key, genome, sizes) -> genome`, with static shapes, and consumes the key. One
that finds nothing to change, or no room, returns the genome as it is. Gaier and Ha 2019, section
3.2; probabilities of the official code.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtickets.search.graphs.activations import ACTIVATIONS
from jaxtickets.search.graphs.genome import Genome, Sizes, used
from jaxtickets.types import Array, Key

TRIES = 16
"""How many pairs of nodes `add_connection` draws until one can be connected."""


class Probabilities(NamedTuple):
    """The probability of each mutation; they sum to 1."""

    add_node: float = 0.25
    add_connection: float = 0.2
    toggle_connection: float = 0.05
    change_activation: float = 0.5


def mutate(key: Key, genome: Genome, sizes: Sizes, probabilities: Probabilities) -> Genome:
    """One mutation, drawn with its probability.

    Args:
      key: consumed.
      genome: the parent.
      sizes: static.
      probabilities: static.

    >>> from jaxtickets.search.graphs.genome import Capacity, complexity, first_population
    >>> sizes, key = Sizes(inputs=2, outputs=1), jax.random.key(0)
    >>> population = first_population(key, sizes, Capacity(1, 5), 2, share=1.0)
    >>> graph = jax.tree.map(lambda leaf: leaf[0], population)
    >>> toggle = Probabilities(0.0, 0.0, 1.0, 0.0)
    >>> toggled = jax.jit(mutate, static_argnums=(2, 3))(key, graph, sizes, toggle)
    >>> int(complexity(graph)), int(complexity(toggled))
    (3, 2)
    """
    kind_key, key = jax.random.split(key)
    kind = jax.random.choice(kind_key, len(MUTATIONS), p=jnp.array(probabilities))
    ways = [lambda key, genome, way=way: way(key, genome, sizes) for way in MUTATIONS]
    child: Genome = jax.lax.switch(kind, ways, key, genome)
    return child


def add_node(key: Key, genome: Genome, sizes: Sizes) -> Genome:
    """Splits an enabled connection: a new node takes its place, with a random activation.

    The connection is disabled. The node's rank is drawn among those between its source and its
    target, and the nodes from that rank on move back by one.

    >>> from jaxtickets.search.graphs.genome import Capacity, complexity, first_population
    >>> sizes, key = Sizes(inputs=2, outputs=1), jax.random.key(0)
    >>> population = first_population(key, sizes, Capacity(1, 5), 2, share=1.0)
    >>> graph = jax.tree.map(lambda leaf: leaf[0], population)
    >>> graph = jax.jit(add_node, static_argnums=2)(key, graph, sizes)
    >>> int(graph.hidden), int(graph.connections), int(complexity(graph))  # one is disabled
    (1, 5, 4)
    """
    pick_key, rank_key, activation_key = jax.random.split(key, 3)
    enabled = genome.enabled & used(genome)
    old = _random_place(pick_key, enabled)
    source, target = genome.source[old], genome.target[old]
    node = sizes.outputs + genome.hidden
    room = jnp.any(enabled)
    room &= genome.hidden < genome.rank.shape[0] - sizes.outputs
    room &= genome.connections + 2 <= genome.source.shape[0]

    least = _rank_of(genome, source, sizes) + 1
    most = jnp.minimum(genome.rank[target], genome.hidden)
    rank = jax.random.randint(rank_key, (), least, most + 1)
    row = jnp.arange(genome.rank.shape[0])
    inner = (row >= sizes.outputs) & (row < node)
    moved = jnp.where(inner & (genome.rank >= rank), genome.rank + 1, genome.rank)
    activation = jax.random.randint(activation_key, (), 0, len(ACTIVATIONS))
    grown = genome._replace(
        enabled=genome.enabled.at[old].set(False),
        activation=genome.activation.at[node].set(activation),
        rank=moved.at[node].set(rank),
        hidden=genome.hidden + 1,
    )
    grown = _connect(grown, source, node)
    grown = _connect(grown, sizes.inputs + 1 + node, target)
    return _where(room, grown, genome)


def add_connection(key: Key, genome: Genome, sizes: Sizes) -> Genome:
    """Connects a pair that isn't connected, drawn uniformly among those that keep the order.

    Pairs with a disabled connection count as connected. The pair is drawn by rejection; after
    `TRIES` misses the genome stays as it is, as in the official code.

    >>> from jaxtickets.search.graphs.genome import Capacity, first_population
    >>> sizes, key = Sizes(inputs=2, outputs=1), jax.random.key(0)
    >>> population = first_population(key, sizes, Capacity(1, 5), 2, share=1.0)
    >>> graph = jax.tree.map(lambda leaf: leaf[0], population)
    >>> add = jax.jit(add_connection, static_argnums=2)
    >>> int(add(key, graph._replace(connections=jnp.int32(0)), sizes).connections)
    1
    >>> int(add(key, graph, sizes).connections)  # all pairs were connected
    3
    """
    source_key, target_key = jax.random.split(key)
    nodes = sizes.inputs + 1 + genome.hidden  # that may be read: no output is
    drawn = jax.random.randint(source_key, (TRIES,), 0, nodes)
    hidden = drawn > sizes.inputs
    sources = jnp.where(hidden, drawn + sizes.outputs, drawn)
    targets = jax.random.randint(target_key, (TRIES,), 0, sizes.outputs + genome.hidden)
    ranks = jnp.where(hidden, genome.rank[jnp.maximum(sources - sizes.inputs - 1, 0)], -1)
    known = (genome.source[None] == sources[:, None]) & (genome.target[None] == targets[:, None])
    free = (ranks < genome.rank[targets]) & ~jnp.any(known & used(genome)[None], axis=1)
    first = jnp.argmax(free)
    grown = _connect(genome, sources[first], targets[first])
    room = genome.connections < genome.source.shape[0]
    return _where(free[first] & room, grown, genome)


def toggle_connection(key: Key, genome: Genome, sizes: Sizes) -> Genome:
    """Enables a disabled connection, or disables an enabled one. The official code only enables.

    >>> from jaxtickets.search.graphs.genome import Capacity, complexity, first_population
    >>> sizes, key = Sizes(inputs=2, outputs=1), jax.random.key(0)
    >>> population = first_population(key, sizes, Capacity(1, 5), 2, share=1.0)
    >>> graph = jax.tree.map(lambda leaf: leaf[0], population)
    >>> int(complexity(graph)), int(complexity(toggle_connection(key, graph, sizes)))
    (3, 2)
    """
    del sizes
    there = used(genome)
    place = _random_place(key, there)
    toggled = genome.enabled.at[place].set(~genome.enabled[place])
    return _where(jnp.any(there), genome._replace(enabled=toggled), genome)


def change_activation(key: Key, genome: Genome, sizes: Sizes) -> Genome:
    """Gives a hidden node another activation than it has.

    >>> from jaxtickets.search.graphs.genome import Capacity, first_population
    >>> sizes, key = Sizes(inputs=2, outputs=1), jax.random.key(0)
    >>> population = first_population(key, sizes, Capacity(1, 5), 2, share=1.0)
    >>> graph = jax.tree.map(lambda leaf: leaf[0], population)._replace(hidden=jnp.int32(1))
    >>> changed = change_activation(key, graph, sizes)
    >>> (changed.activation != graph.activation).tolist()  # the output, the hidden node
    [False, True]
    """
    node_key, activation_key = jax.random.split(key)
    node = sizes.outputs + jax.random.randint(node_key, (), 0, jnp.maximum(genome.hidden, 1))
    other = jax.random.randint(activation_key, (), 1, len(ACTIVATIONS))
    activation = (genome.activation[node] + other) % len(ACTIVATIONS)
    changed = genome._replace(activation=genome.activation.at[node].set(activation))
    return _where(genome.hidden > 0, changed, genome)


Mutation = Callable[[Key, Genome, Sizes], Genome]
MUTATIONS: tuple[Mutation, ...] = (add_node, add_connection, toggle_connection, change_activation)
"""In the order of `Probabilities`."""


def _connect(genome: Genome, source: Array, target: Array) -> Genome:
    """The genome with an enabled connection more, which stands last among those to its target.

    Args:
      genome: with room for it.
      source: the number of a node of a lower rank.
      target: the row of a node.
    """
    slot = jnp.arange(genome.source.shape[0])
    before = used(genome) & (genome.rank[genome.target] <= genome.rank[target])
    place = jnp.sum(before)

    def insert(old: Array, new: Array | bool) -> Array:
        later = jnp.where(slot > place, jnp.roll(old, 1), old)
        return jnp.where(slot == place, jnp.asarray(new, old.dtype), later)

    return genome._replace(
        source=insert(genome.source, source),
        target=insert(genome.target, target),
        enabled=insert(genome.enabled, True),
        connections=genome.connections + 1,
    )


def _rank_of(genome: Genome, source: Array, sizes: Sizes) -> Array:
    """The rank of a node by its number; -1 for inputs and the bias."""
    row = source - sizes.inputs - 1
    return jnp.where(row < 0, -1, genome.rank[jnp.maximum(row, 0)])


def _random_place(key: Key, among: Array) -> Array:
    """The place of a True of bool`[n]`, each with the same probability; 0 if there is none."""
    nth = jax.random.randint(key, (), 0, jnp.maximum(jnp.sum(among), 1))
    return jnp.argmax(jnp.cumsum(among) > nth)


def _where(condition: Array, one: Genome, other: Genome) -> Genome:
    chosen: Genome = jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
    return chosen
