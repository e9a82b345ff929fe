"""Annealing over masks while their weights train: chains of moves and training rounds.

A chain's point is a training: a mask with the weights and moments that train under it. A proposal
moves the mask by sampled drop and grow (`dynamic.annealed_granet`), then trains it for a round.
Metropolis' rule compares the loss of the result on held-out images with that of what a rejection
leaves, on the same images: mask, weights and moments before the proposal, pruned to the plan's
count where that falls. So counts are exact after every round. The clock goes on in either case: the
learning rate falls, and later proposals draw other numbers.

    search = annealed_training.build(recipe, prunable, rounds, ...)
    chain = search.begin(inputs, data)
    chain, infos, end = search.chunk(inputs, chain, 0, data)

`inputs` is a `TrainedChain`, `data` a `TrainedData`. Without heat, and always accepted, masks and
weights are those of GraNet's training with the same key, bit for bit. Chains of a group help each
other between chunks, as those of any search (`search.interacting_chains`): replica exchange gives
each chain the heat and the temperature of its rung, and population annealing copies chains whole,
with their weights. `trained_interactions` has others.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxtickets import masks, training
from jaxtickets.data import batches as data_batches
from jaxtickets.dynamic import rules
from jaxtickets.dynamic.annealed_granet import annealed_granet
from jaxtickets.dynamic.drop_and_grow import MovePlan, Shares
from jaxtickets.dynamic.granet import granet
from jaxtickets.dynamic.rules import Score
from jaxtickets.recipes.annealed_search import GroupInteraction, Search
from jaxtickets.search.acceptance import Rule
from jaxtickets.search.annealing import Info, State
from jaxtickets.search.chains import Chain, ChunkInfo
from jaxtickets.search.interacting_chains import Between, Interaction
from jaxtickets.search.space import Space, choose
from jaxtickets.training import Recipe
from jaxtickets.types import (
    Array,
    Key,
    Mask,
    Params,
    Prunable,
    PyTree,
    Split,
    Stats,
    TrainState,
)


class Rounds(NamedTuple):
    """How chains move and train; static.

    Attributes:
      every: training steps in a round.
      images: training images of a move's gradient.
      chunk: rounds in a chunk.
      shares, floor: see `dynamic.granet`.
      accept: the acceptance rule; None accepts all, and computes no energy unless chains interact.
      drop, grow: the scores from which weights are sampled, see `dynamic.rules`.
    """

    every: int
    images: int
    chunk: int
    shares: Shares = "global"
    floor: int = 0
    accept: Rule | None = None
    drop: Score = rules.magnitude
    grow: Score = rules.gradient


class TrainedChain(NamedTuple):
    """The inputs of a chain: arrays.

    Attributes:
      key: of the training, as in `training.train_chunk`; it also decides what is drawn.
      hyper: the optimiser's hyperparameters.
      params, stats, mask: where the training begins.
      moves: the plan of the moves, one for each round; the last one is not made.
      drop_heat, grow_heat: float32 scalars, the first temperatures of what is dropped and grown.
      temperatures: float32`[rounds]`, those of the acceptance, in nats.
    """

    key: Key
    hyper: PyTree
    params: Params
    stats: Stats
    mask: Mask
    moves: MovePlan
    drop_heat: Array
    grow_heat: Array
    temperatures: Array


class TrainedData(NamedTuple):
    """The data of a chain: raw images and labels, on the device. Never test data.

    Attributes:
      train: for training steps and moves.
      scored: for energies; training doesn't see them.
      validation: chooses among chains.
    """

    train: Split
    scored: Split
    validation: Split


class Walk(NamedTuple):
    """A chain's training.

    Attributes:
      state: the training.
      held: int32, like the prunable leaves, flat: the rounds since the count reached its last value
        in which each weight was kept.
    """

    state: TrainState
    held: Array


def build(
    recipe: Recipe,
    prunable: Prunable,
    rounds: Rounds,
    interaction: Interaction | None = None,
) -> Search:
    """The search of a chain, and the interaction of a group.

    The energy is the loss on the scored images; where all is accepted and no chains interact, it is
    the mean loss of the round's training batches, infinite before the first round. Chosen is always
    the last mask, with the validation loss of the net that trains under it as its score.

    Args:
      recipe: how nets are trained; its optimiser is the inner one.
      prunable: the leaves that are masked.
      rounds: how chains move.
      interaction: how the chains of a group interact between two chunks; None: they do not.

    >>> from jaxtickets import losses
    >>> from jaxtickets.nets import functional_plain
    >>> params, key = {"w": jnp.zeros((2, 2))}, jax.random.key(0)
    >>> data = Split(jnp.eye(2), jnp.arange(2))
    >>> net = functional_plain(lambda params, images: images @ params["w"], params)
    >>> same = lambda images: images
    >>> recipe = Recipe(
    ...     net,
    ...     losses.classification(net, same),
    ...     optimizer=lambda hyper: optax.sgd(1.0),
    ...     prepare=same,
    ...     augment=None,
    ...     batch_size=2,
    ...     every=1,
    ... )
    >>> search = build(recipe, ("w",), Rounds(every=1, images=2, chunk=2))
    >>> plan = MovePlan(jnp.array([2, 2]), jnp.array([1, 1]))  # two of four weights; one moves
    >>> dense_column = {"w": jnp.array([[True, False], [True, False]])}
    >>> hyper, heat, temperatures = (), jnp.float32(0), jnp.ones(2)
    >>> chain = TrainedChain(key, hyper, params, {}, dense_column, plan, heat, heat, temperatures)
    >>> seen = TrainedData(data, data, data)
    >>> state, infos, _ = search.chunk(chain, search.begin(chain, seen), 0, seen)
    >>> int(state.chosen["w"].sum()), infos.accepted.tolist()
    (2, [True, True])
    """
    scores = rounds.accept is not None or interaction is not None

    def optimizers(
        chain: TrainedChain, scale: Array
    ) -> tuple[optax.GradientTransformationExtraArgs, optax.GradientTransformationExtraArgs]:
        """Those of proposals, and of what a rejection leaves."""
        inner = recipe.optimizer(chain.hyper)
        hot = annealed_granet(
            inner,
            chain.mask,
            prunable,
            chain.moves,
            rounds.every,
            key=jax.random.fold_in(chain.key, 1),
            floor=rounds.floor,
            shares=rounds.shares,
            drop=rounds.drop,
            grow=rounds.grow,
            drop_heat=chain.drop_heat * scale,
            grow_heat=chain.grow_heat * scale,
        )
        still = chain.moves._replace(replaced=jnp.zeros_like(chain.moves.replaced))
        every, floor = rounds.every, rounds.floor
        return hot, granet(inner, chain.mask, prunable, still, every, floor, rounds.shares)

    def loss(state: TrainState, split: Split) -> Array:
        found = training.evaluate(recipe.model, recipe.prepare, state.params, state.stats, split)
        return found["loss"]

    def begin(chain: TrainedChain, data: TrainedData) -> Chain:
        optimizer, _ = optimizers(chain, jnp.float32(1))
        state = training.init(chain.params, chain.stats, optimizer, average=recipe.average)
        held = jnp.zeros(masks.flatten(chain.mask, prunable).shape, jnp.int32)
        energy = loss(state, data.scored) if scores else jnp.asarray(jnp.inf, float)
        walk = State(
            walk=Walk(state, held),
            energy=energy,
            best=(),
            best_energy=energy,
            start=chain.mask,
            scale=jnp.float32(1),
            log_size=jnp.float32(0),
            memory=() if rounds.accept is None else rounds.accept.init(energy),
        )
        return Chain(walk, chain.mask, jnp.asarray(jnp.inf, float))

    def chunk(
        chain: TrainedChain, at: Chain, start: Array, data: TrainedData
    ) -> tuple[Chain, Info, ChunkInfo]:
        hot, still = optimizers(chain, at.state.scale)
        order_key, step_key, move_key = jax.random.split(chain.key, 3)
        draw_key = jax.random.fold_in(chain.key, 1)
        fetch, n = training.fetcher(recipe, data.train), data.train.labels.shape[0]
        state = at.state.walk.state
        own = state.opt_state._replace(key=draw_key)  # a copy has its parent's
        at = at._replace(
            state=at.state._replace(
                walk=at.state.walk._replace(state=state._replace(opt_state=own))
            )
        )
        index = data_batches.stream(
            order_key, state.step, rounds.chunk * rounds.every, n, recipe.batch_size
        )
        last = chain.moves.ones[-1]

        def left(before: TrainState) -> TrainState:
            """What a rejection leaves: the training before the move, pruned to the plan's count."""
            zero = jax.tree.map(jnp.zeros_like, before.params)
            updates, opt_state = still.update(zero, before.opt_state, before.params, move=True)
            params = optax.apply_updates(before.params, updates)
            return before._replace(params=params, opt_state=opt_state)

        def judged(
            now: State, number: Array, before: TrainState, after: TrainState, reached: Array
        ) -> tuple[TrainState, Array, Array, PyTree]:
            """The next training, its energy, whether it is the proposal, and the rule's memory."""
            if rounds.accept is None:
                return after, reached, jnp.bool_(True), now.memory
            stays = left(before)
            energy = loss(stays, data.scored)
            accepted, memory = rounds.accept.accept(
                jax.random.fold_in(jax.random.fold_in(chain.key, 2), number),
                chain.temperatures[number] * now.scale,
                energy,
                reached,
                jnp.float32(0),
                rounds.accept.new_level(now.memory, jnp.bool_(True)),
            )
            accepted |= number == 0
            after = _either(accepted, after, _on_time(stays, after))
            return after, jnp.where(accepted, reached, energy), accepted, memory

        def one(now: State, given: tuple[Array, Array]) -> tuple[State, Info]:
            number, index = given
            before = now.walk.state
            moved = training.move_mask(recipe, hot, move_key, before, data.train, rounds.images)
            moved = _either(number == 0, before, moved)  # nothing has trained yet
            after, metrics = training.take_steps(
                recipe, chain.hyper, hot, step_key, moved, index, fetch, move=False
            )
            trained = jnp.mean(metrics["loss"]).astype(float)
            reached = loss(after, data.scored) if scores else trained
            after, reached, accepted, memory = judged(now, number, before, after, reached)
            kept = masks.flatten(after.mask, prunable)
            settled = masks.count(after.mask, prunable) == last
            walk = Walk(after, now.walk.held + (kept & settled))
            now = now._replace(walk=walk, energy=reached, best_energy=reached, memory=memory)
            temperature = chain.temperatures[number] * now.scale
            size = chain.moves.replaced[jnp.maximum(number - 1, 0)]
            return now, Info(reached, reached, accepted, temperature, size)

        numbers = start + jnp.arange(rounds.chunk, dtype=jnp.int32)
        given = numbers, index.reshape(rounds.chunk, rounds.every, -1)
        now, info = lax.scan(one, at.state, given)
        state = now.walk.state
        score = loss(state, data.validation)
        moved = masks.hamming(state.mask, now.start, prunable)
        chain_now = at._replace(state=now, chosen=state.mask, chosen_score=score)
        return chain_now, info, ChunkInfo(moved, jnp.float32(0), score)

    def begin_groups(group: Chain) -> Chain:
        assert interaction is not None
        state, memory = interaction.begin(group.state)
        return group._replace(state=state, memory=memory)

    def interact(chain: TrainedChain, group: Chain, start: Array, data: TrainedData) -> Chain:
        assert interaction is not None
        del data
        planned = chain.temperatures
        between = Between(
            rounds=jnp.int32(planned.shape[0] // rounds.chunk),
            temperature=planned[start - 1],
            next=planned[start],
        )
        key = jax.random.fold_in(jax.random.fold_in(chain.key, 3), start)
        state, memory = interaction.interact(key, (), group.state, group.memory, between)
        return group._replace(state=state, memory=memory)

    groups = GroupInteraction(begin_groups, interact) if interaction else None
    return Search(begin, chunk, groups)


def consensus(space: Space, held: Array, keep: int, floor: int = 0) -> Array:
    """bool`[n]`: the weights that most rounds of most chains keep; ties are broken by position.

    Args:
      space: the space of the bits of masks.
      held: int32`[chains, n]`, see `Walk`.
      keep, floor: see `space.choose`.

    >>> from jaxtickets.search.space import weights
    >>> space = weights({"w": np.ones((1, 3))}, ("w",))
    >>> consensus(space, held=np.array([[3, 0, 1], [2, 1, 4]]), keep=2).tolist()
    [True, False, True]
    """
    return choose(space, held.sum(0).astype(jnp.float32), jnp.int32(keep), floor)


def _either(when: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(when, a, b), new, old)


def _on_time(old: TrainState, new: TrainState) -> TrainState:
    """The old state with the clocks of the new one: its step and all whole numbers alone."""

    def leaf(before: Array, after: Array) -> Array:
        clock = jnp.ndim(before) == 0 and jnp.issubdtype(before.dtype, jnp.integer)
        return after if clock else before

    return jax.tree.map(leaf, old, new)
