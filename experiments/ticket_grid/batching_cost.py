"""The time of several trainings in series, batched by `vmap`, and spread over devices."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.harness import timing
from experiments.harness.problem import Problem
from experiments.harness.training_runs import Start, splits_of
from jaxtickets import runs, training
from jaxtickets.runs import Axis
from jaxtickets.types import Dataset


def compare(
    problem: Problem, axis: Axis, starts: Start, data: Dataset, evaluations: int = 1
) -> list[dict[str, Any]]:
    """Times the trainings `starts` in three ways.

    In series: one training after another on the first device. Batched: all in one `vmap` on that
    device. Spread: over the devices of `axis`, in its mode.

    Args:
      problem: the net and its training.
      axis: the run axis.
      starts: the trainings, with a leading axis of runs.
      data: the data set, on the device.
      evaluations: the length of each training, in evaluations.

    Returns:
      A row for each way: `way`, `devices`, `trainings`, `steps` (of each training), `seconds` (of
      all), `speed_up` (over series), `efficiency` (speed-up per device).
    """
    recipe = problem.recipe._replace(evaluations_per_test=0)
    many = len(np.atleast_1d(starts.step))
    first = jax.local_devices()[:1]
    ways = {
        "in series, one device": runs.axis("map", 1, first),
        "batched by vmap, one device": runs.axis("vmap", many, first),
        f"{axis.mode}, blocks of {axis.width}, {_count(axis.devices)}": axis,
    }

    def one(start: Start, splits: training.Splits) -> training.Watched:
        return training.train(
            recipe,
            start.key,
            start.hyper,
            start.params,
            start.stats,
            start.mask,
            splits,
            evaluations * recipe.every,
            start=start.step,
        )[0]

    made: list[dict[str, Any]] = []
    for way, chosen in ways.items():
        run = runs.batch(one, chosen)
        rows = runs.split(starts, chosen)
        shared = runs.share(splits_of(problem, data)._replace(test=None), chosen)
        seconds = timing.best_time(partial(run, rows, shared), repeats=2)
        speed_up = made[0]["seconds"] / seconds if made else 1.0
        made.append(
            {
                "way": way,
                "devices": len(chosen.devices),
                "trainings": many,
                "steps": evaluations * recipe.every,
                "seconds": round(seconds, 4),
                "speed_up": round(speed_up, 3),
                "efficiency": round(speed_up / len(chosen.devices), 3),
            }
        )
    return made


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `compare` as text."""
    lines = [f"{'trained':40}{'s':>9}{'speed-up':>10}{'efficiency':>12}"]
    lines += [
        f"{r['way']:40}{r['seconds']:>9.3f}{r['speed_up']:>10.2f}{r['efficiency']:>12.2f}"
        for r in rows
    ]
    return "\n".join(lines)


def _count(devices: Sequence[jax.Device]) -> str:
    return f"{len(devices)} device" + ("s" if len(devices) > 1 else "")
