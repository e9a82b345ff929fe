"""Trains a batch of runs with metrics, checkpoints, resume and a live line."""

import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import streamed_runs
from experiments.harness.chunked_run import Advance, check_finite, run_in_chunks
from experiments.harness.problem import Problem
from experiments.harness.progress import Progress
from experiments.harness.seeds import Seed, training_key
from experiments.harness.session import Session
from experiments.harness.streamed_runs import Own, step_if
from jaxtickets import runs, training
from jaxtickets.io.errors import UserError
from jaxtickets.runs import Axis, Blocks
from jaxtickets.training import Recipe, Splits, Watched
from jaxtickets.types import Array, Dataset, Key, Mask, Model, Params, PyTree, Split, Stats

PROGRAMS = 8
"""The number of compiled programs of a kind that are kept for the next batches of a run, so that
levels and parts aren't traced again."""
CHUNK_EPOCHS = 5
"""Epochs in a chunk if evaluations are more frequent than epochs. Each chunk shuffles its epochs
again, which takes up to a tenth of the time of a small net's epoch."""


class Start(NamedTuple):
    """The start of one training, or of several with a leading axis of runs.

    Attributes:
      key: a scalar key array; it decides the order of the data.
      hyper: a PyTree of scalars, the optimiser's hyperparameters.
      params, stats: the parameters and batch statistics.
      mask: like `params`, bool.
      step: int scalar, the training step at which the parameters were taken, see `training.init`.
      fill: like `params`, the values of pruned weights; None: zero. All runs of a batch have a
        fill, or none has.
    """

    key: Key
    hyper: PyTree
    params: Params
    stats: Stats
    mask: Mask
    step: Array = 0
    fill: Params | None = None


def start_of(problem: Problem, one: Seed, mask: Mask, params: Params | None = None) -> Start:
    """The start of a mask's training from its seed's weights, or from others of the same step.

    Args:
      problem: its hyperparameters are used.
      one: the seed; its order of the data is used.
      mask: the mask.
      params: the weights; None: the seed's.
    """
    weights = one.params if params is None else params
    return Start(training_key(one), problem.hyper, weights, one.stats, mask, one.step)


def train_all(
    session: Session,
    phase: str,
    starts: Start,
    names: list[dict[str, Any]],
    keep_at: tuple[int, ...] = (),
    end: int = 0,
) -> Watched:
    """Trains all runs of `starts` to the step `end`; returns their final states, stacked.

    Runs may start at different steps. All share one clock from the earliest step to `end`, and a
    run waits until the clock reaches its own step. There is one metrics row for each run and
    evaluation, with `step`, `train_loss`, `train_accuracy`, `loss` and `accuracy` (on validation
    data), `test_accuracy` where it is measured, and the fields of `names`.

    Photographs that are read from disk come in one order, which belongs to no run, see
    `streamed_runs`; the keys of the runs decide augmentation on the device, and dropout.

    Args:
      session: the net, its recipe and data, the run axis, and the run's folder.
      phase: the batch's name, see `run_in_chunks`.
      starts: `Start` with a leading axis of runs.
      names: the fields of each run in metrics rows, such as method, density and seed.
      keep_at: see `training.watch`.
      end: the last step; 0: `session.problem.steps`.

    Raises:
      ValueError: the length of a training isn't a multiple of the steps between evaluations.
    """
    problem, axis = session.problem, session.axis
    recipe, end = problem.recipe, end or problem.steps
    clock = np.asarray(starts.step, int)
    plan = chunk_plan(problem, clock.tolist(), end)
    streamed = problem.photographs is not None
    legs = streamed_runs.legs(session, plan[0][0], end) if streamed else []
    firsts = [leg.start for leg in legs] if streamed else [now for now, _ in plan]

    def begin_one(start: Start) -> Watched:
        inner = recipe.optimizer(start.hyper)
        optimizer = recipe.sparsify(inner, start.mask, start.fill, start.hyper)
        state = training.init(
            start.params,
            start.stats,
            optimizer,
            fill=start.fill,
            step=start.step,
            average=recipe.average,
        )
        return training.watch(state, keep_at)

    labels = [" ".join(str(value) for value in name.values()) for name in names]

    def report(i: int, info: dict[str, Any]) -> tuple[list[dict[str, Any]], dict]:
        due = np.flatnonzero(info.pop("due"))
        pieces = info.pop("losses") if streamed else [info["train_loss"]]
        losses = np.concatenate([piece[due].reshape(len(due), -1) for piece in pieces], axis=1)
        check_finite(losses, [labels[j] for j in due], firsts[i], "training loss")
        seen = {name: values[due] for name, values in info.items()}
        shown = {"loss": losses[:, -recipe.every :].mean()}
        if not seen:  # no evaluation, in the middle of an epoch of photographs
            return [], shown
        made = [row for at, j in enumerate(due) for row in _rows(names[j], seen, at)]
        return made, {**shown, "validation": seen["accuracy"][:, -1].mean()}

    timed = starts._replace(step=jnp.asarray(clock, jnp.int32))
    own = Own(starts.key, starts.hyper, starts.fill)

    def rows(watched: Watched) -> PyTree:
        return streamed_runs.rows(own, watched) if streamed else (own, watched)

    def begin() -> PyTree:
        return rows(runs.over_runs(begin_one, axis, timed))

    def shapes() -> PyTree:
        return rows(jax.eval_shape(jax.vmap(begin_one), timed))

    images = recipe.batch_size * int((end - clock).sum()) / (end - plan[0][0])
    label = f"{phase}, {len(names)} runs"
    progress = Progress(
        label, end, {"validation": ".2%"}, "images", per_step=images, later=session.later
    )
    if streamed:
        ends = [leg.stop for leg in legs]
        with streamed_runs.steps(session, legs, keep_at) as step:
            done = run_in_chunks(session, phase, begin, ends, step, report, progress, shapes)
        return done.watched
    ends = [now + evaluations * recipe.every for now, evaluations in plan]
    step = _in_memory(session, plan, keep_at)
    return run_in_chunks(session, phase, begin, ends, step, report, progress, shapes)[1]


def _in_memory(
    session: Session, plan: Sequence[tuple[int, int]], keep_at: tuple[int, ...]
) -> Advance:
    """The function that trains a chunk of `chunk_plan` on data that are on the device."""
    recipe, axis = session.problem.recipe, session.axis
    splits = runs.share(splits_of(session.problem, session.data), axis)

    def step(blocks: Blocks, i: int) -> tuple[Blocks, Blocks]:
        now, evaluations = plan[i]
        advance = _chunk_program(recipe, axis, evaluations, keep_at)
        return runs.unzip(advance(blocks, runs.share(np.int32(now), axis), splits))

    return step


@lru_cache(maxsize=PROGRAMS)
def _chunk_program(
    recipe: Recipe, axis: Axis, evaluations: int, keep_at: tuple[int, ...]
) -> Callable[..., Blocks]:
    """The program of one chunk, which all batches with this recipe share."""

    def one(row: tuple[Own, Watched], now: Array, splits: Splits) -> PyTree:
        (key, hyper, fill), watched = row

        def go_on(watched: Watched) -> tuple[Watched, PyTree]:
            return training.train_chunk(
                recipe, key, hyper, watched, splits, evaluations, keep_at=keep_at, fill=fill
            )

        due = watched.state.step == now
        watched, seen = step_if(due, go_on, watched)
        return (row[0], watched), {**seen, "due": due}

    return runs.batch(one, axis)


def _rows(name: dict[str, Any], seen: dict[str, np.ndarray], run: int) -> list[dict[str, Any]]:
    """The metrics rows of a run, one for each evaluation."""
    tested = seen.get("test_accuracy")
    group = seen["step"].shape[1] // tested.shape[1] if tested is not None else 0
    made = []
    for at in range(seen["step"].shape[1]):
        fields = [field for field in ("step", *seen) if field != "test_accuracy"]
        row = {field: seen[field][run, at] for field in fields}
        row["train_loss"] = row["train_loss"].mean()
        if tested is not None and (at + 1) % group == 0:
            row["test_accuracy"] = tested[run, at // group]
        made.append({**name, **row})
    return made


def chunk_plan(problem: Problem, clock: Sequence[int], end: int) -> list[tuple[int, int]]:
    """The chunks of a training: `(first step, number of evaluations)` each.

    A chunk starts wherever a run starts. If evaluations are more frequent than epochs, a chunk has
    up to `CHUNK_EPOCHS` epochs, else one evaluation. A checkpoint can be saved after each chunk.

    Args:
      problem: its recipe says how often the nets are evaluated.
      clock: the step at which each run starts.
      end: the step at which all runs end.

    Raises:
      ValueError: a run starts or ends at a step without an evaluation.
    """
    recipe = problem.recipe
    unit = recipe.every * max(recipe.evaluations_per_test, 1)
    marks = sorted({*clock, end})
    if marks[-1] != end or len(marks) < 2:
        raise ValueError(f"training from step {marks[-1]} can't end at step {end}")
    epoch = problem.epoch_steps
    most = max(1, CHUNK_EPOCHS * epoch // unit if unit < epoch else 1) * unit
    plan = []
    for start, stop in itertools.pairwise(marks):
        if (stop - start) % unit:
            raise ValueError(
                f"training from step {start} to {stop}: must be a multiple of {unit} steps, "
                "the steps between two evaluations"
            )
        cuts = [*range(start, stop, most), stop]
        plan += [(a, (b - a) // recipe.every) for a, b in itertools.pairwise(cuts)]
    return plan


def steps_between_moves(every: int, problem: Problem) -> int:
    """The training steps between two moves of a mask: `every`, or those between evaluations if 0.

    Raises:
      UserError: an evaluation falls between two moves.
    """
    every = every or problem.recipe.every
    if problem.recipe.every % every:
        raise UserError(
            f"--move_every={every}: must divide {problem.recipe.every}, the steps between "
            "evaluations (--look_every)"
        )
    return every


def splits_of(problem: Problem, data: Dataset) -> Splits:
    """The data of a training; the test data only if the recipe evaluates on them.

    Of photographs that are read from disk, it is the sample in memory, also in place of the
    validation data: enough to time a training.
    """
    if problem.photographs is not None:
        return Splits(data.train, data.train)
    tested = problem.recipe.evaluations_per_test > 0
    return Splits(data.train, data.validation, data.test if tested else None)


def accuracies(session: Session, params: Params, stats: Stats, part: str) -> np.ndarray:
    """float`[runs]`: the accuracy of each of the stacked nets on a part of the data.

    Use it on test data for final numbers only.

    Args:
      session: the net and the data.
      params, stats: the nets, with a leading axis of runs.
      part: `validation` or `test`.
    """
    problem = session.problem
    if problem.photographs is not None:
        return streamed_runs.accuracies(session, params, stats, part)
    recipe, axis = problem.recipe, session.axis
    evaluate = _accuracy_program(recipe.model, recipe.prepare, axis)
    split = runs.share(session.data._asdict()[part], axis)
    return np.asarray(runs.join(evaluate(runs.split((params, stats), axis), split)))


@lru_cache(maxsize=PROGRAMS)
def _accuracy_program(
    model: Model, prepare: Callable[[Array], Array], axis: Axis
) -> Callable[..., Blocks]:
    """The program that evaluates a net, which all batches of this model share."""

    def one(row: tuple[Params, Stats], split: Split) -> Array:
        params, stats = row
        return training.evaluate(model, prepare, params, stats, split)["accuracy"]

    return runs.batch(one, axis)
