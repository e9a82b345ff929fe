"""The life of a run: `set_up`, the experiment's own checks, `start_run`, `finish_run`.

An experiment makes its own checks between `set_up` and `start_run`, so that bad input is refused
before any work starts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.harness import memory, reading, records, report, setup
from experiments.harness.flags import RunSettings
from experiments.harness.problem import Problem, build, on_device
from experiments.harness.reading import Reader
from experiments.harness.seeds import Seed, seed
from experiments.harness.training_settings import NetSettings
from jaxtickets import data, runs
from jaxtickets.data.photographs import NAMES as PHOTOGRAPHS
from jaxtickets.io.errors import UserError
from jaxtickets.runs import Axis
from jaxtickets.types import Dataset


class Session(NamedTuple):
    """The arguments that every part of a run needs.

    A part with its own net, folder or seeds gets `session._replace(problem=...)`.

    Attributes:
      folder: the run's folder, for records, tickets and checkpoints.
      problem: the net, its data and its training.
      axis: how runs are batched.
      data: the data set, as arrays on the device; see `Problem.dataset`.
      seeds: the seeds, each with the weights that masks select from.
      checkpoint_seconds: seconds between two checkpoints.
      later: the images of the trainings that follow this part of the run, for the time that is
        left; None: unknown.
      reader: reads the problem's photographs; None if it has none.
    """

    folder: Path
    problem: Problem
    axis: Axis
    data: Dataset
    seeds: Sequence[Seed]
    checkpoint_seconds: float
    later: float | None = None
    reader: Reader | None = None


def set_up(
    place: RunSettings, parts: Sequence[Any], photographs: bool = False
) -> tuple[Axis, Problem]:
    """Sets JAX up and returns the run axis and the problem. Writes nothing.

    Args:
      place: where and how the run is executed.
      parts: the settings. The last three are `NetSettings`, `TrainSettings` and `BatchSettings`.
      photographs: whether the experiment takes photographs that are read from disk.

    Raises:
      UserError, DataError: see `build` and `check_memory`.
    """
    *_, net, train, batch = parts
    if not photographs:
        refuse_photographs(net)
    setup.start(place, batch.precision)
    axis = runs.axis(batch.mode, batch.width)
    problem = build(net, train, place.data_dir, place.prepare, batch.precision)
    size = memory.training(problem.param_shapes)
    memory.check_memory(f"--width={batch.width}", batch.width, size, "trainings of a block")
    copy = sum(array.nbytes for array in jax.tree.leaves(problem.dataset.train))
    memory.check_memory(f"--devices={place.devices}", place.devices, copy, "copies of the data")
    return axis, problem


def refuse_photographs(net: NetSettings) -> None:
    """Raises UserError if the data set is photographs, for an experiment that needs arrays."""
    if net.dataset in PHOTOGRAPHS:
        raise UserError(
            f"--dataset={net.dataset}: this experiment takes data sets that fit into memory only: "
            f"{', '.join(data.NAMES)}"
        )


def start_run(
    experiment: str, place: RunSettings, parts: Sequence[Any], axis: Axis, problem: Problem
) -> Session:
    """Opens the run's folder, puts the data on the device, and initialises the seeds' nets.

    Args:
      experiment: the experiment's name.
      place: where and how the run is executed.
      parts: the settings whose fields form the spec. The last three are as in `set_up`.
      axis: how runs are batched.
      problem: the net, its data and its training.
    """
    *_, net, _, _ = parts
    run = records.open_run_of_flags(experiment, place, parts, axis)
    return session_in(run.folder, place, axis, problem, net)


def session_in(
    folder: Path, place: RunSettings, axis: Axis, problem: Problem, net: NetSettings
) -> Session:
    """The session of a net in a run's folder, see `start_run`."""
    streams = problem.photographs
    return Session(
        folder=folder,
        problem=problem,
        axis=axis,
        data=on_device(problem.dataset),
        seeds=[seed(problem, net.seed + i) for i in range(net.seeds)],
        checkpoint_seconds=place.checkpoint_seconds,
        reader=reading.reader(folder, place, axis, streams) if streams else None,
    )


def finish_run(folder: Path) -> None:
    """Records the end time, writes the report, and prints where all is.

    The run's folder is the last line of every run. Before it stands how many corrupt photographs
    were skipped; `skipped.json` names them.
    """
    records.finish_run(folder)
    report.finish(folder)
    for part, number in reading.all_skipped(folder).items():
        print(f"{number} corrupt photographs of {part} were skipped, see {reading.SKIPPED}")
    print(f"run: {folder}")
