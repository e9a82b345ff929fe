"""The time of several trainings in series, batched by `vmap`, and spread over 1, 2, 4, ... devices.

Virtual CPU devices share the machine's cores, so that their speed-up ends at the number of cores.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.harness import setup, timing
from experiments.harness.problem import Problem
from experiments.harness.training_runs import Start, splits_of
from experiments.ticket_grid import step_profile
from jaxtickets import runs, training
from jaxtickets.runs import Axis, Blocks, Shared
from jaxtickets.types import Dataset

MOST_STEPS = 60
"""The length of a timed training, unless an evaluation is sooner."""


def compare(problem: Problem, axis: Axis, starts: Start, data: Dataset) -> list[dict[str, Any]]:
    """Times the trainings `starts` in several ways.

    In series: one training after another on the first device. Batched: all in one `vmap` on that
    device. Spread: over 1, 2, 4, ... devices of this process, and over all of `axis`, in its mode.

    A training is `MOST_STEPS` steps, or those until an evaluation, and an evaluation of one batch,
    which is of training images, the only ones in memory if they are photographs.

    Args:
      problem: the net and its training.
      axis: the run axis.
      starts: the trainings, with a leading axis of runs.
      data: the data set, on the device.

    Returns:
      A row for each way: `way`, `devices`, `trainings`, `steps` (of each training), `seconds` (of
      all), `speed_up` (over series), `efficiency` (speed-up per device).
    """
    many = len(np.atleast_1d(starts.step))
    ways = _ways(axis, many)

    def call_of(chosen: Axis) -> Callable[[], Blocks]:
        rows, shared = _placed(problem, starts, data, chosen)
        return partial(runs.batch(_training(problem), chosen), rows, shared)

    # in turns, so that other programs on the machine slow down no way alone
    seconds = timing.best_times([call_of(chosen) for chosen in ways.values()], repeats=3)
    return [
        {
            "way": way,
            "devices": len(chosen.devices),
            "trainings": many,
            "steps": _steps(problem),
            "seconds": round(spent, 4),
            "speed_up": round(seconds[0] / spent, 3),
            "efficiency": round(seconds[0] / spent / len(chosen.devices), 3),
        }
        for (way, chosen), spent in zip(ways.items(), seconds, strict=True)
    ]


def profile(problem: Problem, axis: Axis, starts: Start, data: Dataset) -> list[dict[str, Any]]:
    """Where the time of a block of the trainings goes, see `step_profile`.

    Args:
      problem, starts, data: see `compare`.
      axis: its mode and its width; one device is profiled.
    """
    alone = axis if axis.mode == runs.DATA else axis._replace(devices=axis.devices[:1])
    rows, shared = _placed(problem, starts, data, alone)
    block, splits = rows.blocks[0], shared.copies[0]
    compiled = runs.program(_training(problem), alone).lower(block, splits).compile()
    return step_profile.profile(compiled, lambda: compiled(block, splits))


def _ways(axis: Axis, many: int) -> dict[str, Axis]:
    local = jax.local_devices()
    powers = [2**i for i in range(len(local).bit_length()) if 2**i < len(axis.devices)]
    spread = [axis._replace(devices=tuple(local[:count])) for count in powers]
    return {
        "in series, one device": runs.axis("map", 1, local[:1]),
        "batched by vmap, one device": runs.axis("vmap", many, local[:1]),
        **{
            f"{one.mode}, blocks of {one.width}, {_count(one.devices)}": one
            for one in (*spread, axis)
        },
    }


def _steps(problem: Problem) -> int:
    return min(problem.recipe.every, MOST_STEPS)


def _training(problem: Problem) -> Callable[..., training.Watched]:
    recipe = problem.recipe._replace(evaluations_per_test=0, every=_steps(problem))

    def one(start: Start, splits: training.Splits) -> training.Watched:
        return training.train(
            recipe,
            start.key,
            start.hyper,
            start.params,
            start.stats,
            start.mask,
            splits,
            recipe.every,
            start=start.step,
        )[0]

    return one


def _placed(problem: Problem, starts: Start, data: Dataset, axis: Axis) -> tuple[Blocks, Shared]:
    few = jax.tree.map(lambda a: a[: problem.recipe.batch_size], data.train)
    splits = splits_of(problem, data)._replace(validation=few, test=None)
    return runs.split(starts, axis), runs.share(splits, axis)


def shared_cores(axis: Axis) -> str:
    """What to know of the speed-ups if there are more virtual CPU devices than cores."""
    devices, cores = len(jax.local_devices()), setup.cores()
    if axis.devices[0].platform != "cpu" or devices <= cores:
        return ""
    return f"{devices} virtual CPU devices share {cores} cores: no speed-up can be above {cores}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `compare` as text."""
    head = f"{rows[0]['trainings']} trainings of {rows[0]['steps']} steps"
    lines = [f"{head:40}{'s':>9}{'speed-up':>10}{'efficiency':>12}"]
    lines += [
        f"{r['way']:40}{r['seconds']:>9.3f}{r['speed_up']:>10.2f}{r['efficiency']:>12.2f}"
        for r in rows
    ]
    return "\n".join(lines)


def _count(devices: Sequence[jax.Device]) -> str:
    return f"{len(devices)} device" + ("s" if len(devices) > 1 else "")
