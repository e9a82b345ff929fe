"""What a seed fixes: its keys, and the weights that masks select from."""

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
    """A seed.

    Attributes:
      number: its number, which all its keys are streams of.
      params, stats: the weights that masks select from.
      step: the training step that they come from.
      stage: counts up where a net that was made from a trained one takes the seed's place: each
        stage has keys of its own.
    """

    number: int
    params: Params
    stats: Stats
    step: int
    stage: int = 0


def seed(problem: Problem, number: int) -> Seed:
    """The seed of that number, with the weights at initialisation."""
    params, stats = jax.jit(problem.recipe.model.init)(stream(number, "init"))
    return Seed(number, params, stats, step=0)


def training_key(one: Seed, order: int = 0) -> Key:
    """The key of a training in the seed's own order of the data (0), or in another."""
    return stream(one.number, "training", one.stage, order)


def mask_key(one: Seed, method: str, density: float) -> Key:
    """What a method draws for its mask of a density; where it makes no mask yet, that of 1."""
    return stream(one.number, "mask", one.stage, method, density)


def weighted(problem: Problem, seed: Seed, weights: str, steps: int, data: Dataset) -> Seed:
    """The seed with other weights.

    Args:
      problem: the net, and how it is trained.
      seed: with the weights at initialisation.
      weights: `init`; `signed_constant`, see `nets.signed_constant`; `trained`, after `steps`
        steps of the recipe.
      steps: static.
      data: on the device.
    """
    if weights == "signed_constant":
        return seed._replace(params=nets.signed_constant(seed.params))
    if weights == "init":
        return seed
    recipe = problem.recipe._replace(every=steps, test_looks=0)
    print(
        f"seed {seed.number}: {steps} training steps to the weights that masks select from",
        flush=True,
    )
    splits, dense = training.Splits(data.train, data.validation), masks.ones(seed.params)

    def run(params: Params, stats: Stats) -> training.TrainState:
        begin = recipe, training_key(seed), problem.hyper, params, stats, dense
        return training.train(*begin, splits, steps)[0].state

    state = jax.jit(run)(seed.params, seed.stats)
    return seed._replace(params=state.params, stats=state.stats, step=steps)


def examples(data: Dataset) -> int:
    """The training images that criteria look at, see `evidence`."""
    return 10 * min(100, len(data.train.labels) // 10)


def evidence(problem: Problem, seed: Seed, trained: Params | None, data: Dataset) -> Evidence:
    """What criteria look at: ten batches of up to 100 training images, and trained parameters."""
    size = examples(data) // 10
    first = [np.asarray(array)[: 10 * size] for array in data.train]
    return Evidence(
        init_params=seed.params,
        params=seed.params if trained is None else trained,
        stats=seed.stats,
        mask=masks.ones(seed.params),
        batches=Split(*(array.reshape(10, size, *array.shape[1:]) for array in first)),
        loss=problem.recipe.loss,
        model=problem.recipe.model,
        prepare=problem.recipe.prepare,
        prunable=problem.prunable,
    )
