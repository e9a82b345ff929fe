"""How experiments begin: from settings to a problem, and once all is checked, to a run.

An experiment's own checks stand between the two, so that bad input ends before work starts.
"""

from collections.abc import Sequence
from typing import Any

from experiments.harness import records, setup
from experiments.harness.flags import RunSettings
from experiments.harness.problem import Problem, build, on_device
from experiments.harness.records import Run
from experiments.harness.seeds import Seed, seed
from jaxtickets import runs
from jaxtickets.runs import Axis
from jaxtickets.types import Dataset


def prepare(place: RunSettings, parts: Sequence[Any]) -> tuple[Axis, Problem]:
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
    return axis, build(net, train, place.data_dir, place.prepare)


def begin(
    experiment: str, place: RunSettings, parts: Sequence[Any], axis: Axis, problem: Problem
) -> tuple[Run, Dataset, list[Seed]]:
    """Opens the run; returns it, the data on the device, and the seeds.

    Args:
      experiment: its name.
      place: where it runs.
      parts: settings whose fields together are the spec, the last three as `prepare` takes them.
      axis: how runs are batched.
      problem: the net and its data.
    """
    *_, net, _, _ = parts
    run = records.begin(experiment, place, parts, axis)
    data = on_device(problem.dataset)
    return run, data, [seed(problem, net.seed + i) for i in range(net.seeds)]
