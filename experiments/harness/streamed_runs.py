"""Trains and evaluates a batch of runs on photographs that are read from disk.

A device holds a piece of a few batches at a time, while the next piece is read. All runs see the
same batches: those of their training step. An evaluation reads its examples in pieces too, unless
they are so few that they stay on the devices.

The steps between two evaluations are cut into legs, after each of which a checkpoint can be saved;
so a run continues in the middle of an epoch.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import reading
from experiments.harness.chunked_run import Advance
from experiments.harness.photographs import Photographs
from experiments.harness.reading import TEST, TRAIN, VALIDATION, Piece, Reader
from experiments.harness.session import Session
from jaxtickets import runs, training
from jaxtickets.runs import Axis, Blocks, Shared
from jaxtickets.training import Totals, Watched
from jaxtickets.types import Array, Key, Params, PyTree, Split, Stats, TrainState

LEGS = 32
"""The most legs between two evaluations."""


class Own(NamedTuple):
    """What a run has of its own from first to last, see `training.train_chunk`."""

    key: Key
    hyper: PyTree
    fill: Params | None


class Row(NamedTuple):
    """A run in progress; stacked, with a leading axis of runs.

    Attributes:
      own: see `Own`.
      watched: the training so far.
      loss, accuracy: float scalars, summed over the steps since the last evaluation.
    """

    own: Own
    watched: Watched
    loss: Array
    accuracy: Array


class Leg(NamedTuple):
    """Training steps after which a checkpoint can be saved.

    Attributes:
      pieces: the first step of each piece, and the one after its last.
      evaluated, tested: whether an evaluation on validation and on test data follows.
    """

    pieces: tuple[tuple[int, int], ...]
    evaluated: bool
    tested: bool

    @property
    def start(self) -> int:
        """The first step."""
        return self.pieces[0][0]

    @property
    def stop(self) -> int:
        """The step after the last."""
        return self.pieces[-1][1]


def rows(own: Own, watched: Watched) -> Row:
    """Stacked runs before their first step, or after an evaluation."""
    zeros = jnp.zeros(watched.step.shape, float)
    return Row(own, watched, zeros, zeros)


def streams_of(session: Session) -> tuple[Reader, Photographs]:
    """How the session's photographs are read, and what they are."""
    assert session.reader is not None and session.problem.photographs is not None
    return session.reader, session.problem.photographs


def legs(session: Session, start: int, end: int) -> list[Leg]:
    """The legs from the step `start` to `end`, with an evaluation after each `recipe.every` steps.

    Moves of a mask fall between two pieces, or into one.
    """
    recipe, (reader, photographs) = session.problem.recipe, streams_of(session)
    unit = recipe.moves.every if recipe.moves else 1
    most = reading.most_steps(reader, photographs.training) // unit or 1
    cuts = [unit * cut for cut in _cuts(recipe.every // unit, most)]
    together = -(-(len(cuts) - 1) // LEGS)
    made = []
    for first in range(start, end, recipe.every):
        pieces = [(first + a, first + b) for a, b in itertools.pairwise(cuts)]
        number = (first - start) // recipe.every + 1
        per_test = recipe.evaluations_per_test
        tested = per_test > 0 and number % per_test == 0
        for at in range(0, len(pieces), together):
            last = at + together >= len(pieces)
            made.append(Leg(tuple(pieces[at : at + together]), last, last and tested))
    return made


def _cuts(steps: int, most: int) -> list[int]:
    """0 to `steps` in parts of at most `most`: equal ones, unless they would be half of that."""
    equal = max(size for size in range(1, min(most, steps) + 1) if steps % size == 0)
    size = equal if 2 * equal > min(most, steps) else min(most, steps)
    return [*range(0, steps, size), steps]


def step_if(
    due: Array, step: Callable[[PyTree], tuple[PyTree, PyTree]], state: PyTree
) -> tuple[PyTree, PyTree]:
    """`step(state)` of a run that is due; of one that waits, its state, and zeros as the result."""
    step = jax.jit(step, inline=True)  # traced once, for the zeros' shapes and for the branch

    def wait(state: PyTree) -> tuple[PyTree, PyTree]:
        seen = jax.eval_shape(step, state)[1]
        return state, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), seen)

    return jax.lax.cond(due, step, wait, state)


Reading = Generator[Shared, None, None]
Train = Callable[[Blocks, Leg, Reading], tuple[Blocks, Blocks]]
"""`train(rows, leg, pieces) -> (rows, info)` takes the leg's pieces and trains all runs that are
at its first step. The info has `due`, whether a run was; `losses`, `[steps]` of each piece; and,
after an evaluation, the metrics of `training.train_chunk`, `[1]` each."""


@contextlib.contextmanager
def pieces_from(session: Session, some: Sequence[Leg]) -> Iterator[Callable[[int], Reading]]:
    """The function `pieces(i)` of the pieces of all legs from leg i on, where reading starts.

    Later calls continue, whatever their argument. Reading ends with the context.
    """
    reader, photographs = streams_of(session)
    started: list[Reading] = []

    def pieces(i: int) -> Reading:
        if not started:
            left = [piece for leg in some[i:] for piece in leg.pieces]
            started.append(
                reading.read(session.folder, reader, TRAIN, photographs, left, session.axis)
            )
        return started[0]

    try:
        yield pieces
    finally:
        for one in started:
            one.close()


@contextlib.contextmanager
def steps(
    session: Session, some: Sequence[Leg], keep_at: tuple[int, ...] = ()
) -> Iterator[Advance]:
    """The function that trains leg after leg, from any one on, see `chunked_run.Advance`.

    Args:
      session, keep_at: see `training_of`.
      some: the legs.
    """
    train = training_of(session, keep_at)
    with pieces_from(session, some) as pieces:
        yield lambda rows, i: train(rows, some[i], pieces(i))


Epoch = Callable[[Blocks, Blocks, int], tuple[Blocks, Blocks]]
"""`train(owns, watched, i) -> (watched, metrics)`, of blocks of `Own` and of `Watched`; the metrics
are those of `training.train_chunk` for epoch i, and `losses[steps]`."""


@contextlib.contextmanager
def epochs(
    session: Session, length: int, number: int, keep_at: tuple[int, ...] = ()
) -> Iterator[Epoch]:
    """The function that trains runs, which all start at step 0, for an epoch.

    Args:
      session, keep_at: see `training_of`.
      length: the steps of an epoch, a multiple of `recipe.every`.
      number: how many epochs there are.
    """
    train = training_of(session, keep_at)
    some = legs(session, 0, length * number)
    each = len(some) // number
    zeros = runs.batch(lambda watched: jnp.zeros((), float), session.axis)
    join = runs.batch(_joined, session.axis)

    with pieces_from(session, some) as pieces:

        def epoch(owns: Blocks, watched: Blocks, i: int) -> tuple[Blocks, Blocks]:
            rows = runs.pick(
                lambda own, watched, zero: Row(own, watched, zero, zero),
                owns,
                watched,
                zeros(watched),
            )
            infos = []
            for leg in some[i * each : (i + 1) * each]:
                rows, info = train(rows, leg, pieces(i * each))
                infos.append(info)
            return (
                runs.pick(lambda row: row.watched, rows),
                join(runs.pick(lambda *parts: list(parts), *infos)),
            )

        yield epoch


def _joined(infos: Sequence[dict[str, Any]]) -> dict[str, Array]:
    """The infos of the legs of a run, see `Train`, without `due`, as one."""
    names = [name for name in infos[-1] if name not in ("due", "losses")]
    evaluated = [info for info in infos if len(info) > 2]
    metrics = {name: jnp.concatenate([info[name] for info in evaluated]) for name in names}
    losses = [piece for info in infos for piece in info["losses"]]
    return {**metrics, "losses": jnp.concatenate(losses)}


def training_of(session: Session, keep_at: tuple[int, ...] = ()) -> Train:
    """The function that trains a leg.

    Args:
      session: the net, its recipe and the photographs. Moves of a mask draw their images from the
        sample that is in memory.
      keep_at: see `training.watch`.
    """
    problem, axis = session.problem, session.axis
    recipe = problem.recipe
    sample = runs.share(session.data.train, axis)

    def at(row: Row, now: Array) -> Array:
        return row.watched.state.step == now

    def steps(row: Row, now: Array, piece: Piece, sample: Split) -> tuple[Row, Array]:
        own = row.own

        def go_on(state: TrainState) -> tuple[TrainState, tuple[Array, Array]]:
            state, metrics = training.train_steps(
                recipe, own.key, own.hyper, state, piece.split, sample, own.fill
            )
            return state, (metrics["loss"], metrics["accuracy"])

        state, (losses, hits) = step_if(at(row, now), go_on, row.watched.state)
        sums = row.loss + jnp.sum(losses.astype(float)), row.accuracy + jnp.sum(hits.astype(float))
        watched = row.watched._replace(state=state)
        return row._replace(watched=watched, loss=sums[0], accuracy=sums[1]), losses

    def prepare(pair: tuple[Row, Array]) -> Row:
        row, due = pair

        def changed(state: TrainState) -> TrainState:
            return training.before_evaluation(recipe, state, row.own.fill)

        state = jax.lax.cond(due, changed, lambda state: state, row.watched.state)
        return row._replace(watched=row.watched._replace(state=state))

    def observe(found: tuple[Row, Array, dict[str, Totals]]) -> tuple[Row, PyTree]:
        row, due, totals = found
        seen = training.mean_of(totals[VALIDATION])
        means = {"loss": row.loss / recipe.every, "accuracy": row.accuracy / recipe.every}

        def see(watched: Watched) -> tuple[Watched, PyTree]:
            return training.observed(recipe, watched, watched.state, means, seen, keep_at)

        watched, metrics = step_if(due, see, row.watched)
        if TEST in totals:
            metrics["test_accuracy"] = training.mean_of(totals[TEST])["accuracy"]
        zero = jnp.zeros_like(row.loss)
        row = row._replace(watched=watched, loss=zero, accuracy=zero)
        return row, jax.tree.map(lambda a: jnp.asarray(a)[None], metrics)

    run_steps, run_prepare = runs.batch(steps, axis), runs.batch(prepare, axis)
    run_observe, run_due = runs.batch(observe, axis), runs.batch(at, axis)

    def go(rows: Blocks, leg: Leg, pieces: Reading) -> tuple[Blocks, Blocks]:
        due, losses = run_due(rows, _shared(leg.start, axis)), []
        for (start, _), piece in zip(leg.pieces, pieces, strict=False):
            rows, seen = runs.unzip(run_steps(rows, _shared(start, axis), piece, sample))
            losses.append(seen)
        info = runs.pick(lambda due, *seen: {"due": due, "losses": list(seen)}, due, *losses)
        if not leg.evaluated:
            return rows, info
        if recipe.before_evaluation is not None:
            rows = run_prepare(runs.zip_(rows, due))
        nets = runs.pick(lambda row: (row.watched.state.params, row.watched.state.stats), rows)
        names = (VALIDATION, TEST) if leg.tested else (VALIDATION,)
        found = [totals(session, nets, name) for name in names]
        sums = runs.pick(lambda *sums: dict(zip(names, sums, strict=True)), *found)
        together = runs.pick(lambda *parts: parts, rows, due, sums)
        rows, metrics = runs.unzip(run_observe(together))
        return rows, runs.pick(lambda info, seen: {**info, **seen}, info, metrics)

    return go


def totals(session: Session, nets: Blocks, part: str) -> Blocks:
    """The `Totals` of each net, a pair of parameters and statistics, on a part's examples.

    Args:
      session: the net as functions, and the photographs.
      nets: blocks of pairs.
      part: `validation` or `test`.
    """
    reader, photographs = streams_of(session)
    problem, axis = session.problem, session.axis
    add = _adding(problem.recipe.model, problem.recipe.prepare, axis)
    begin = _beginning(axis)
    found = begin(nets)
    if part in reader.kept:
        return add(runs.zip_(nets, found), reader.kept[part])
    one = photographs.validation if part == VALIDATION else photographs.test
    pieces = reading.evaluation_pieces(reader, one)
    for piece in reading.read(session.folder, reader, part, photographs, pieces, axis):
        found = add(runs.zip_(nets, found), piece)
    return found


@lru_cache(maxsize=8)
def _adding(model: Any, prepare: Any, axis: Axis) -> Callable[..., Blocks]:
    def add(pair: tuple[tuple[Params, Stats], Totals], piece: Piece) -> Totals:
        (params, stats), total = pair
        return training.evaluate_parts(
            model, prepare, params, stats, piece.split, piece.valid, total
        )

    return runs.batch(add, axis)


@lru_cache(maxsize=8)
def _beginning(axis: Axis) -> Callable[..., Blocks]:
    return runs.batch(lambda net: training.no_totals(), axis)


def accuracies(session: Session, params: Params, stats: Stats, part: str) -> np.ndarray:
    """float`[runs]`: the accuracy of each of the stacked nets, see `training_runs.accuracies`."""
    found = runs.join(totals(session, runs.split((params, stats), session.axis), part))
    return np.asarray(found.hits / found.examples)


def _shared(step: int, axis: Axis) -> Shared:
    return runs.share(np.int32(step), axis)
