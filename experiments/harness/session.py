"""A run from its flags to its end: set up, checked by the experiment, started, finished.

An experiment's own checks stand between `set_up` and `start_run`, so that bad input ends before
work starts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.harness import memory, records, setup
from experiments.harness.flags import RunSettings
from experiments.harness.problem import Problem, build, on_device
from experiments.harness.seeds import Seed, seed
from jaxtickets import runs
from jaxtickets.runs import Axis
from jaxtickets.types import Dataset


class Session(NamedTuple):
    """What every part of a run needs.

    Parts with a net, a folder, or seeds of their own take `session._replace(problem=...)`.

    Attributes:
      folder: where records, tickets and checkpoints go.
      problem: the net, its data and its training.
      axis: how runs are batched.
      data: the data set, on the device.
      seeds: the seeds, with the weights that masks select from.
      checkpoint_seconds: time between two checkpoints.
    """

    folder: Path
    problem: Problem
    axis: Axis
    data: Dataset
    seeds: Sequence[Seed]
    checkpoint_seconds: float


def set_up(place: RunSettings, parts: Sequence[Any]) -> tuple[Axis, Problem]:
    """Sets JAX up; returns the run axis and the problem. Nothing is written yet.

    Args:
      place: where the run is executed.
      parts: settings, the last three the net's, the training's and the batch's.

    Raises:
      UserError, DataError: see `build`.
    """
    *_, net, train, batch = parts
    setup.start(place, batch.precision)
    axis = runs.axis(batch.mode, batch.width)
    problem = build(net, train, place.data_dir, place.prepare)
    size = memory.training(problem.param_shapes)
    memory.check_memory(f"--width={batch.width}", batch.width, size, "trainings of a block")
    copy = sum(array.nbytes for array in jax.tree.leaves(problem.dataset.train))
    memory.check_memory(f"--devices={place.devices}", place.devices, copy, "copies of the data")
    return axis, problem


def start_run(
    experiment: str, place: RunSettings, parts: Sequence[Any], axis: Axis, problem: Problem
) -> Session:
    """Opens the run's folder, puts the data on the device, and initialises the seeds' nets.

    Args:
      experiment: its name.
      place: where it runs.
      parts: settings whose fields together are the spec, the last three as `set_up` takes them.
      axis: how runs are batched.
      problem: the net and its data.
    """
    *_, net, _, _ = parts
    run = records.open_run_of_flags(experiment, place, parts, axis)
    return Session(
        folder=run.folder,
        problem=problem,
        axis=axis,
        data=on_device(problem.dataset),
        seeds=[seed(problem, net.seed + i) for i in range(net.seeds)],
        checkpoint_seconds=place.checkpoint_seconds,
    )


def finish_run(folder: Path) -> None:
    """Records the time of the run's end, and prints its folder: the last line of a run."""
    records.finish_run(folder)
    print(f"run: {folder}")
