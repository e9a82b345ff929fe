"""What a seed fixes: keys of each purpose, and the weights that masks select from."""

from typing import NamedTuple

import jax
import numpy as np

from experiments.harness.problem import Problem
from jaxtickets import masks, nets, training
from jaxtickets.criteria import Evidence
from jaxtickets.types import Dataset, Key, Params, Split, Stats

WEIGHTS = ("init", "signed_constant", "trained")


class Seed(NamedTuple):
    """A seed.

    Attributes:
      number: its number.
      search, train, control: keys of searches, of trainings (data order, dropout) and of controls.
      params, stats: the weights that masks select from.
      step: the training step that they come from.
    """

    number: int
    search: Key
    train: Key
    control: Key
    params: Params
    stats: Stats
    step: int


def seed(problem: Problem, number: int) -> Seed:
    """The seed of that number, with the weights at initialisation."""
    init, search, train, control = jax.random.split(jax.random.key(number), 4)
    params, stats = jax.jit(problem.recipe.model.init)(init)
    return Seed(number, search, train, control, params, stats, step=0)


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
    splits, dense = training.Splits(data.train, data.validation), masks.ones(seed.params)

    def run(params: Params, stats: Stats) -> training.TrainState:
        begin = recipe, seed.train, problem.hyper, params, stats, dense
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
