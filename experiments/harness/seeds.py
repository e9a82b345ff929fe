"""Seeds: the random keys that a seed fixes, and the weights that masks select from."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.harness.problem import Problem
from jaxtickets import masks, nets, training
from jaxtickets.criteria import Evidence
from jaxtickets.keys import stream
from jaxtickets.types import Dataset, Key, Params, Split, Stats

WEIGHTS = ("init", "signed_constant", "trained")


class Seed(NamedTuple):
    """The state of one seed.

    Attributes:
      number: the seed's number. All its keys are streams of it.
      params, stats: the weights and statistics that masks select from.
      step: the training step at which they were taken.
      stage: how many times a net made from a trained one has replaced this seed's net. Each stage
        has its own keys.
    """

    number: int
    params: Params
    stats: Stats
    step: int
    stage: int = 0


def seed(problem: Problem, number: int) -> Seed:
    """The seed with this number and its net's initial weights."""
    params, stats = jax.jit(problem.recipe.model.init)(stream(number, "init"))
    return Seed(number, params, stats, step=0)


def training_key(one: Seed, order: int = 0) -> Key:
    """The key of a training. Order 0 is the seed's own order of the data; others are new orders."""
    return stream(one.number, "training", one.stage, order)


def mask_key(one: Seed, method: str, density: float) -> Key:
    """The key with which a method draws its mask at a density (1 if it only scores)."""
    return stream(one.number, "mask", one.stage, method, density)


def weighted(problem: Problem, seed: Seed, weights: str, steps: int, data: Dataset) -> Seed:
    """The seed with its initial weights replaced as `weights` says.

    Args:
      problem: the net and its training.
      seed: the seed with its initial weights.
      weights: `init` changes nothing; `signed_constant` is `nets.signed_constant`; `trained` gives
        the weights after `steps` training steps.
      steps: how many training steps; static.
      data: the data set, on the device.
    """
    if weights == "signed_constant":
        return seed._replace(params=nets.signed_constant(seed.params))
    if weights == "init":
        return seed
    recipe = problem.recipe._replace(every=steps, evaluations_per_test=0)
    print(
        f"seed {seed.number}: trains {steps} steps to get the weights that masks select from",
        flush=True,
    )
    splits, dense = training.Splits(data.train, data.validation), masks.ones(seed.params)

    def run(params: Params, stats: Stats) -> training.TrainState:
        key = training_key(seed)
        watched, _ = training.train(
            recipe, key, problem.hyper, params, stats, mask=dense, data=splits, steps=steps
        )
        return watched.state

    state = jax.jit(run)(seed.params, seed.stats)
    return seed._replace(params=state.params, stats=state.stats, step=steps)


def examples(data: Dataset) -> int:
    """How many training images criteria are computed on, see `evidence`."""
    return 10 * min(100, len(data.train.labels) // 10)


def evidence(problem: Problem, seed: Seed, trained: Params | None, data: Dataset) -> Evidence:
    """The input of criteria: the seed's net, and ten batches of up to 100 training images.

    Args:
      problem: the net and its training.
      seed: its weights are the initial ones.
      trained: the trained parameters; None stands for the seed's weights.
      data: the data set, on the device.
    """
    size = examples(data) // 10
    first = [np.asarray(array)[: 10 * size] for array in data.train]
    return problem.evidence(
        init_params=seed.params,
        params=seed.params if trained is None else trained,
        stats=seed.stats,
        mask=masks.ones(seed.params),
        batches=Split(*(array.reshape(10, size, *array.shape[1:]) for array in first)),
    )
