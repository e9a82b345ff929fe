"""Trains a batch of nets from records to records: an epoch a chunk, resumable."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtickets import runs, training
from jaxtickets.io.loop import check_finite, loop
from jaxtickets.io.problem import Problem
from jaxtickets.io.progress import Progress
from jaxtickets.runs import Axis, Shared
from jaxtickets.types import Key, Mask, Params, PyTree, Split, Stats, TrainState


class Start(NamedTuple):
    """Where one training begins: the run's key, hyperparameters, parameters, statistics, mask."""

    key: Key
    hyper: PyTree
    params: Params
    stats: Stats
    mask: Mask


def train_all(
    folder: Path,
    phase: str,
    problem: Problem,
    axis: Axis,
    starts: Start,
    names: list[dict[str, Any]],
    train_split: Shared,
    validation: Shared,
    every: float,
) -> TrainState:
    """Trains all rows of `starts`; returns their last states, stacked.

    Metrics rows hold `step`, `train_loss`, `train_accuracy`, `loss` and `accuracy` (validation),
    beside what `names` says of each row.

    Args:
      folder, phase, every: see `loop`.
      problem: the net and its recipe; `problem.steps` are trained.
      axis: the run axis.
      starts: `Start` with a leading axis of runs.
      names: what metrics rows say of each run, such as method, density and seed.
      train_split, validation: the data, on each device.
    """
    recipe = problem.recipe

    def begin_one(start: Start) -> TrainState:
        optimizer = recipe.optimizer(start.hyper)
        return training.init(start.params, start.stats, start.mask, optimizer)

    def epoch(row: tuple[Any, TrainState], train_split: Split, validation: Split) -> PyTree:
        (key, hyper), state = row
        state, metrics = training.interval(
            recipe, key, hyper, state, train_split, validation, recipe.every
        )
        return ((key, hyper), state), metrics

    advance = runs.batch(epoch, axis)

    def report(i: int, info: dict[str, np.ndarray]) -> tuple[list[dict[str, Any]], dict]:
        labels = [" ".join(str(v) for v in name.values()) for name in names]
        check_finite(info["train_loss"], labels, i * recipe.every, "training loss")
        seen = {**info, "train_loss": info["train_loss"].mean(1)}
        rows = [
            {**name, **{field: values[j] for field, values in seen.items()}}
            for j, name in enumerate(names)
        ]
        return rows, {"loss": seen["train_loss"].mean(), "validation": info["accuracy"].mean()}

    def step(blocks: runs.Blocks, i: int) -> tuple[runs.Blocks, runs.Blocks]:
        return runs.unzip(advance(blocks, train_split, validation))

    def begin() -> PyTree:
        return (starts.key, starts.hyper), runs.over_runs(begin_one, axis, starts)

    images = recipe.every * recipe.batch_size * len(names)
    progress = Progress(
        phase, problem.steps // recipe.every, {"validation": ".2%"}, "images", per_step=images
    )
    chunks = problem.steps // recipe.every
    return loop(folder, phase, begin, chunks, step, report, axis, progress, every)[1]


def accuracies(
    problem: Problem, axis: Axis, params: Params, stats: Stats, split: Split
) -> np.ndarray:
    """float`[runs]`: accuracy of stacked parameters on `split`, for the final numbers alone."""
    model, prepare = problem.recipe.model, problem.recipe.prepare

    def one(row: tuple[Params, Stats], split: Split) -> jax.Array:
        return training.evaluate(model, prepare, *row, split)["accuracy"]

    return np.asarray(runs.over_runs(one, axis, (params, stats), split))


def stack(trees: list[PyTree]) -> PyTree:
    """One PyTree with a leading axis from several alike."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
